package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sort"
	"strings"

	"github.com/magiconair/properties"
)

// fileBytesMax bounds a configuration file: a mistaken path to a data file is refused
// rather than read.
const fileBytesMax = 4 << 20

// load reads a properties file as Java does (ISO 8859-1, no expansion, the last of equal
// keys wins) and puts the overrides over it.
func load(path string, overrides []string) (map[string]string, error) {
	values := map[string]string{}
	if path != "" {
		data, err := readFile(path)
		if err != nil {
			return nil, err
		}
		if values, err = ParseProperties(data); err != nil {
			return nil, fmt.Errorf("configuration %s: %w", path, err)
		}
	}
	var problems Problems
	for _, override := range overrides {
		name, value, found := strings.Cut(override, "=")
		name = strings.TrimSpace(name)
		if !found || name == "" {
			problems.add("--override", override, "not of the form key=value", "write --override key=value")
			continue
		}
		values[name] = strings.TrimSpace(value)
	}
	return values, problems.err()
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("configuration %s: no such file; check the path after --config", path)
	case err != nil:
		return nil, fmt.Errorf("configuration: %w", err)
	case info.IsDir():
		return nil, fmt.Errorf("configuration %s: a directory; name the file in it", path)
	case info.Size() > fileBytesMax:
		return nil, fmt.Errorf("configuration %s: %d bytes is too large for a configuration file; check the path", path, info.Size())
	}
	return os.ReadFile(path)
}

// ParseProperties reads the text of a Java properties file.
func ParseProperties(data []byte) (map[string]string, error) {
	loader := properties.Loader{Encoding: properties.ISO_8859_1, DisableExpansion: true}
	parsed, err := loader.LoadBytes(data)
	if err != nil {
		return nil, fmt.Errorf("not a properties file: %w", err)
	}
	return parsed.Map(), nil
}

// settings are the values of a file with the table that explains them. Its getters fall
// back to the default where a value is missing or wrong; what is wrong is in problems.
type settings struct {
	table    table
	values   map[string]string
	problems Problems
	warnings []Warning
}

// newSettings checks every value against the table. other names keys that are known in
// another way (prefixes); it returns false for unknown ones.
func newSettings(t table, values map[string]string, strict bool, server string, other func(s *settings, name, value string) bool) *settings {
	s := &settings{table: t, values: map[string]string{}}
	for _, name := range sortedKeys(values) {
		value := strings.TrimSpace(values[name])
		k := t.byName[name]
		switch {
		case k == nil && other(s, name, value):
		case k == nil:
			s.unknown(name, value, strict)
		default:
			s.take(k, value, server)
		}
	}
	return s
}

func (s *settings) take(k *key, value, server string) {
	if reason, remedy := k.examine(value); reason != "" {
		s.problems.add(k.name, k.show(value), reason, remedy)
		return
	}
	s.values[k.name] = value
	switch {
	case k.support == security && !k.isDefault(value):
		s.refuseSecurity(k.name, k.show(value), k.text)
	case k.support == noEffect:
		s.warnings = append(s.warnings, Warning{k.name, k.show(value),
			"known to " + server + ", no effect here: it " + k.text})
	}
}

// refuseSecurity makes a setting that protects something, and would not, stop the start.
func (s *settings) refuseSecurity(name, value, text string) {
	s.problems.add(name, value, "a security setting that is not enforced yet (it "+text+")",
		"remove it to run without this protection")
}

func (s *settings) unknown(name, value string, strict bool) {
	s.values[name] = value // a plugin's key: kept for DescribeConfigs
	message := "no such key"
	if near := nearest(name, s.table.names); near != "" {
		message += "; did you mean " + near + "?"
	}
	if strict {
		s.problems.add(name, value, message, "correct or remove it, or start without --strict")
		return
	}
	s.warnings = append(s.warnings, Warning{name, value, message})
}

func (t table) names(yield func(string)) {
	for i := range t.ordered {
		yield(t.ordered[i].name)
	}
}

func (k *key) isDefault(value string) bool {
	if k.fallback == unset {
		return value == ""
	}
	return strings.EqualFold(value, k.fallback) || value == "" && (k.typ == String || k.typ == List || k.typ == Class)
}

// show hides a password.
func (k *key) show(value string) string {
	if k.typ == Password {
		return "[hidden]"
	}
	return value
}

func sortedKeys(m map[string]string) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
