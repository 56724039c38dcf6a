package kafka

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// show writes a value for a person: what is zero or empty in a structure is left out.
func show(v any) string {
	var text strings.Builder
	write(&text, reflect.ValueOf(v))
	return text.String()
}

const shownBytes = 72

func write(out *strings.Builder, v reflect.Value) {
	switch v.Kind() {
	case reflect.Invalid:
		out.WriteString("null")
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			out.WriteString("null")
			return
		}
		write(out, v.Elem())
	case reflect.Struct:
		writeStruct(out, v)
	case reflect.String:
		text := v.String()
		if len(text) > 800 || len(text) > 120 && !strings.ContainsRune(text, ' ') {
			text = fmt.Sprintf("%s… (%d bytes)", text[:100], len(text))
		}
		fmt.Fprintf(out, "%q", text)
	case reflect.Slice, reflect.Array:
		writeList(out, v)
	default:
		fmt.Fprint(out, v.Interface())
	}
}

func writeStruct(out *strings.Builder, v reflect.Value) {
	if tags, ok := v.Interface().(kmsg.Tags); ok {
		fmt.Fprintf(out, "%d tags", tags.Len())
		return
	}
	out.WriteByte('{')
	first := true
	for i := range v.NumField() {
		field, value := v.Type().Field(i), v.Field(i)
		if value.IsZero() && value.Kind() != reflect.Slice || field.Name == "UnknownTags" && value.Field(0).Len() == 0 || field.Name == "Version" {
			continue
		}
		if !first {
			out.WriteByte(' ')
		}
		first = false
		out.WriteString(field.Name + ":")
		write(out, value)
	}
	out.WriteByte('}')
}

func writeList(out *strings.Builder, v reflect.Value) {
	switch {
	case v.Kind() == reflect.Slice && v.IsNil():
		out.WriteString("null")
		return
	case v.Type().Elem().Kind() == reflect.Uint8 && v.Kind() == reflect.Slice:
		fmt.Fprintf(out, "<%d bytes % x>", v.Len(), v.Bytes()[:min(v.Len(), shownBytes)])
		return
	case v.Type().Elem().Kind() == reflect.Uint8:
		if v.IsZero() {
			out.WriteString("0")
			return
		}
		fmt.Fprintf(out, "%x", v.Interface())
		return
	}
	out.WriteByte('[')
	for i := range v.Len() {
		if i > 0 {
			out.WriteByte(' ')
		}
		write(out, v.Index(i))
	}
	out.WriteByte(']')
}
