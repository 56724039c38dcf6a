package broker

import (
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/config"
	"understudy/internal/streaming/controller"
	"understudy/internal/streaming/wire"
)

// IncrementalAlterConfigs (key 44), versions 0 and 1: edits overrides by SET, DELETE, APPEND
// and SUBTRACT, the last two for lists only. Otherwise as AlterConfigs.

func (b *Broker) registerIncrementalAlterConfigs() {
	b.server.Handle(44, 0, 1, b.handleIncrementalAlterConfigs)
}

func (b *Broker) handleIncrementalAlterConfigs(request *wire.Request) {
	body := request.Body.(*kmsg.IncrementalAlterConfigsRequest)
	go func() { // it waits for the ensemble
		response := respond[*kmsg.IncrementalAlterConfigsResponse](request)
		for i := range body.Resources {
			asked := &body.Resources[i]
			err := b.alterResource(asked.ResourceType, asked.ResourceName, body.ValidateOnly,
				func(current map[string]string) (map[string]string, error) { return b.editConfig(asked, current) })
			answer := kmsg.NewIncrementalAlterConfigsResponseResource()
			answer.ResourceType, answer.ResourceName = asked.ResourceType, asked.ResourceName
			answer.ErrorCode, answer.ErrorMessage = b.code(err), messageOf(err)
			response.Resources = append(response.Resources, answer)
		}
		request.Reply(response)
	}()
}

// editConfig applies the operations on one resource to its overrides.
func (b *Broker) editConfig(asked *kmsg.IncrementalAlterConfigsRequestResource, current map[string]string) (map[string]string, error) {
	effective := config.DescribeBroker(b.layers())
	if asked.ResourceType == kmsg.ConfigResourceTypeTopic {
		effective = config.DescribeTopic(current, b.layers())
	}
	next := map[string]string{}
	for name, value := range current {
		next[name] = value
	}
	seen := map[string]bool{}
	for _, entry := range asked.Configs {
		if seen[entry.Name] {
			return nil, controller.Refuse(kerr.InvalidRequest, "Error due to duplicate config keys")
		}
		seen[entry.Name] = true
		if entry.Op != kmsg.IncrementalAlterConfigOpDelete && entry.Value == nil {
			return nil, controller.Refuse(kerr.InvalidRequest, "Null value not supported for : %s", entry.Name)
		}
		if err := editKey(next, effective, &entry); err != nil {
			return nil, err
		}
	}
	return next, nil
}

func editKey(next map[string]string, effective []config.Entry, entry *kmsg.IncrementalAlterConfigsRequestResourceConfig) error {
	switch entry.Op {
	case kmsg.IncrementalAlterConfigOpSet:
		next[entry.Name] = *entry.Value
		return nil
	case kmsg.IncrementalAlterConfigOpDelete:
		delete(next, entry.Name)
		return nil
	case kmsg.IncrementalAlterConfigOpAppend, kmsg.IncrementalAlterConfigOpSubtract:
	default:
		return controller.Refuse(kerr.InvalidRequest, "Unknown operation %d on %s", entry.Op, entry.Name)
	}
	at := slices.IndexFunc(effective, func(e config.Entry) bool { return e.Name == entry.Name })
	if at < 0 || effective[at].Type != config.List {
		return controller.Refuse(kerr.InvalidConfig, "Config value append is not allowed for config key: %s", entry.Name)
	}
	words := []string{}
	if value, own := next[entry.Name]; own {
		words = splitList(value)
	} else if effective[at].Value != nil {
		words = splitList(*effective[at].Value)
	}
	for _, word := range splitList(*entry.Value) {
		present := slices.Index(words, word)
		switch {
		case entry.Op == kmsg.IncrementalAlterConfigOpAppend && present < 0:
			words = append(words, word)
		case entry.Op == kmsg.IncrementalAlterConfigOpSubtract && present >= 0:
			words = slices.Delete(words, present, present+1)
		}
	}
	next[entry.Name] = strings.Join(words, ",")
	return nil
}

func splitList(text string) []string {
	words := []string{}
	for _, word := range strings.Split(text, ",") {
		if word = strings.TrimSpace(word); word != "" {
			words = append(words, word)
		}
	}
	return words
}
