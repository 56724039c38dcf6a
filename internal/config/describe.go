package config

import (
	"strconv"
	"strings"
)

// Source says which layer an effective value came from; the numbers are those of
// DescribeConfigs (ConfigSource).
type Source int8

const (
	SourceDynamicTopic         Source = 1
	SourceDynamicBroker        Source = 2
	SourceDynamicDefaultBroker Source = 3
	SourceStaticBroker         Source = 4
	SourceDefault              Source = 5
)

// Entry is one key of a DescribeConfigs answer.
type Entry struct {
	Name      string
	Value     *string // nil: unset or sensitive
	Source    Source
	ReadOnly  bool
	Sensitive bool
	Type      Type // as DescribeConfigs numbers them
	Doc       string
	Synonyms  []Synonym // most specific first, the effective one included
}

// Synonym is one place that could give a key its value.
type Synonym struct {
	Name   string
	Value  *string
	Source Source
}

// BrokerLayers are the places that give a broker's keys their values, most specific first.
type BrokerLayers struct {
	Dynamic        map[string]string // /config/brokers/<id>
	DynamicDefault map[string]string // /config/brokers/<default>
	Static         map[string]string // server.properties: Broker.Values
}

type layer struct {
	values map[string]string
	source Source
}

func (b BrokerLayers) layers() []layer {
	return []layer{
		{b.Dynamic, SourceDynamicBroker},
		{b.DynamicDefault, SourceDynamicDefaultBroker},
		{b.Static, SourceStaticBroker},
	}
}

// DescribeTopic lists every topic key with its effective value for a topic whose own
// settings are given. Synonyms tell the broker's values in the broker keys' own units.
func DescribeTopic(topic map[string]string, broker BrokerLayers) []Entry {
	entries := make([]Entry, 0, len(topicKeys))
	for i := range topicKeys {
		k := &topicKeys[i]
		entry := Entry{Name: k.name, Type: k.typ, Doc: k.text, Source: SourceDefault}
		chain := k.chain(broker, topic)
		if len(chain) > 0 {
			value := k.typ.told(k.convert(chain[0]))
			entry.Value = &value
		}
		if entry.Synonyms = k.shown(chain); len(entry.Synonyms) > 0 {
			entry.Source = entry.Synonyms[0].Source
		}
		entries = append(entries, entry)
	}
	return entries
}

// told is a topic's value as Apache's broker tells it: parsed and written again, unlike in the
// synonyms (ConfigDef.convertToString).
func (t Type) told(value string) string {
	switch t {
	case Bool:
		return strings.ToLower(value)
	case Double:
		if number, err := strconv.ParseFloat(value, 64); err == nil {
			value = strconv.FormatFloat(number, 'f', -1, 64)
			if !strings.Contains(value, ".") {
				value += ".0"
			}
		}
	}
	return value
}

// shown is the part of the chain that is told: the broker's keys from the key's own synonym
// on. Apache's broker leaves out the keys in other units that come before it, and takes the
// source from what is left (ConfigHelper.configSynonyms).
func (k *topicKey) shown(chain []Synonym) []Synonym {
	own := 0
	for own < len(chain) && chain[own].Source == SourceDynamicTopic {
		own++
	}
	for i := own; i < len(chain); i++ {
		if len(k.synonyms) > 0 && chain[i].Name == k.synonyms[0].name {
			return append(chain[:own:own], chain[i:]...)
		}
	}
	return chain[:own]
}

// DescribeBroker lists every broker key with its effective value. Passwords are hidden.
// Keys that nobody knows follow, as sensitive, from the static layer.
func DescribeBroker(broker BrokerLayers) []Entry {
	entries := make([]Entry, 0, len(brokerKeys.ordered))
	for i := range brokerKeys.ordered {
		entries = append(entries, brokerKeys.ordered[i].describe(broker))
	}
	for _, name := range sortedKeys(broker.Static) {
		if brokerKeys.byName[name] == nil {
			entries = append(entries, Entry{Name: name, Source: SourceStaticBroker, ReadOnly: true, Sensitive: true, Type: String})
		}
	}
	return entries
}

func (k *key) describe(broker BrokerLayers) Entry {
	entry := Entry{Name: k.name, Type: k.typ, ReadOnly: k.dynamic == readOnly, Sensitive: k.typ == Password, Source: SourceDefault, Doc: k.doc()}
	add := func(name, value string, source Source) {
		synonym := Synonym{Name: name, Source: source}
		if !entry.Sensitive {
			synonym.Value = &value
		}
		entry.Synonyms = append(entry.Synonyms, synonym)
	}
	for _, layer := range broker.layers() {
		for _, name := range k.brokerSynonyms() {
			if value, found := layer.values[name]; found {
				add(name, value, layer.source)
			}
		}
	}
	for _, name := range k.brokerSynonyms() {
		if fallback := brokerKeys.byName[name].fallback; fallback != unset {
			add(name, fallback, SourceDefault)
		}
	}
	for len(entry.Synonyms) > 0 && entry.Synonyms[0].Name != k.name {
		entry.Synonyms = entry.Synonyms[1:] // as for topics: see shown
	}
	if len(entry.Synonyms) > 0 {
		entry.Source, entry.Value = entry.Synonyms[0].Source, entry.Synonyms[0].Value
	}
	return entry
}

// doc is the key's line of text; for a key without effect it says so.
func (k *key) doc() string {
	switch k.support {
	case noEffect:
		return "Known to Kafka, no effect here: it " + k.text + "."
	case security:
		return "Security, not enforced yet: it " + k.text + "."
	}
	return k.text
}

// brokerSynonyms are the broker keys that give this one its value, itself first
// (DynamicBrokerConfig.brokerConfigSynonyms).
func (k *key) brokerSynonyms() []string {
	switch k.name {
	case "log.roll.ms":
		return []string{"log.roll.ms", "log.roll.hours"}
	case "log.roll.jitter.ms":
		return []string{"log.roll.jitter.ms", "log.roll.jitter.hours"}
	case "log.flush.interval.ms":
		return []string{"log.flush.interval.ms", "log.flush.scheduler.interval.ms"}
	case "log.retention.ms":
		return []string{"log.retention.ms", "log.retention.minutes", "log.retention.hours"}
	}
	return []string{k.name}
}
