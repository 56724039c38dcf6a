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
			err := checkEdits(body, asked)
			if err == nil {
				err = b.alterResource(asked.ResourceType, asked.ResourceName, body.ValidateOnly,
					func(current map[string]string) (map[string]string, error) { return b.editConfig(asked, current) })
			}
			answer := kmsg.NewIncrementalAlterConfigsResponseResource()
			answer.ResourceType, answer.ResourceName = asked.ResourceType, asked.ResourceName
			answer.ErrorCode, answer.ErrorMessage = b.code(err), messageOf(err)
			response.Resources = append(response.Resources, answer)
		}
		request.Reply(response)
	}()
}

// checkEdits looks at a resource's part of the request alone.
func checkEdits(body *kmsg.IncrementalAlterConfigsRequest, asked *kmsg.IncrementalAlterConfigsRequestResource) error {
	times := 0
	for i := range body.Resources {
		if body.Resources[i].ResourceType == asked.ResourceType && body.Resources[i].ResourceName == asked.ResourceName {
			times++
		}
	}
	if times > 1 {
		return controller.Refuse(kerr.InvalidRequest, "Each resource must appear at most once.")
	}
	if err := distinctKeys(len(asked.Configs), func(i int) string { return asked.Configs[i].Name }); err != nil {
		return err
	}
	var null []string
	for _, entry := range asked.Configs {
		if entry.Op != kmsg.IncrementalAlterConfigOpDelete && entry.Value == nil {
			null = append(null, entry.Name)
		}
	}
	if len(null) > 0 {
		return controller.Refuse(kerr.InvalidRequest, "Null value not supported for : %s", strings.Join(null, ", "))
	}
	return nil
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
	for _, entry := range asked.Configs {
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
