package config

import (
	"strconv"
	"strings"
)

// Effective returns every topic key with the value that holds for a topic: the topic's
// own, else the broker's layers through the key's synonyms, else the default. Values of
// broker keys in another unit are converted (log.retention.hours to milliseconds).
func Effective(broker BrokerLayers, topic map[string]string) map[string]string {
	values := make(map[string]string, len(topicKeys))
	for i := range topicKeys {
		k := &topicKeys[i]
		if chain := k.chain(broker, topic); len(chain) > 0 && chain[0].Value != nil {
			values[k.name] = k.convert(chain[0])
		}
	}
	return values
}

// chain lists the places that give a topic key a value, the effective one first.
func (k *topicKey) chain(broker BrokerLayers, topic map[string]string) []Synonym {
	var chain []Synonym
	if value, found := topic[k.name]; found {
		chain = append(chain, Synonym{k.name, &value, SourceDynamicTopic})
	}
	for _, layer := range broker.layers() {
		for _, synonym := range k.synonyms {
			if value, found := layer.values[synonym.name]; found && brokerKeys.byName[synonym.name].isValid(value) {
				chain = append(chain, Synonym{synonym.name, &value, layer.source})
			}
		}
	}
	for _, synonym := range k.synonyms {
		if fallback := brokerKeys.byName[synonym.name].fallback; fallback != unset {
			chain = append(chain, Synonym{synonym.name, &fallback, SourceDefault})
		}
	}
	if len(k.synonyms) == 0 {
		fallback := k.fallback
		chain = append(chain, Synonym{k.name, &fallback, SourceDefault})
	}
	return chain
}

// isValid tells whether a value from a dynamic layer can be used; others are skipped, as
// Kafka skips them.
func (k *key) isValid(value string) bool {
	reason, _ := k.examine(value)
	return reason == ""
}

// convert brings a synonym's value to the topic key's unit. An infinite or overlong value
// stays infinite or becomes the longest.
func (k *topicKey) convert(from Synonym) string {
	value := strings.TrimSpace(*from.Value)
	factor := int64(1)
	if from.Source != SourceDynamicTopic {
		for _, synonym := range k.synonyms {
			if synonym.name == from.Name {
				factor = synonym.factor
			}
		}
	}
	number, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return value
	}
	if number < 0 && k.name == "retention.ms" {
		return "-1"
	}
	if factor == 1 {
		return value
	}
	if number > 0 && number > (1<<63-1)/factor {
		return longMax
	}
	return strconv.FormatInt(number*factor, 10)
}

// ValidateTopic checks a topic's own settings, unknown keys included. The error is a
// Problems, to be answered with INVALID_CONFIG.
func ValidateTopic(topic map[string]string) error {
	return topicProblems(Effective(BrokerLayers{}, topic), topic).err()
}

// topicProblems checks a topic's own values, and what the effective ones say about each
// other.
func topicProblems(effective, topic map[string]string) Problems {
	var problems Problems
	for _, name := range sortedKeys(topic) {
		k := topicKeyNamed(name)
		if k == nil {
			problems.add(name, topic[name], "no such topic key", suggestTopicKey(name))
			continue
		}
		if reason, remedy := k.examine(topic[name]); reason != "" {
			problems.add(name, topic[name], reason, remedy)
		}
	}
	if len(problems) > 0 {
		return problems
	}
	whole := func(name string) int64 {
		value, _ := strconv.ParseInt(effective[name], 10, 64)
		return value
	}
	if whole("min.compaction.lag.ms") > whole("max.compaction.lag.ms") {
		problems.add("min.compaction.lag.ms", effective["min.compaction.lag.ms"], "is above max.compaction.lag.ms",
			"give at most "+effective["max.compaction.lag.ms"])
	}
	if strings.EqualFold(effective["remote.storage.enable"], "true") {
		problems.add("remote.storage.enable", "true", "there is no tiered storage", "remove it")
	}
	if local, all := whole("local.retention.ms"), whole("retention.ms"); local > all && all >= 0 || local == -1 && all != -1 {
		problems.add("local.retention.ms", effective["local.retention.ms"], "is above retention.ms", "give at most "+effective["retention.ms"])
	}
	if local, all := whole("local.retention.bytes"), whole("retention.bytes"); local > all && all >= 0 || local == -1 && all != -1 {
		problems.add("local.retention.bytes", effective["local.retention.bytes"], "is above retention.bytes", "give at most "+effective["retention.bytes"])
	}
	return problems
}

func topicKeyNamed(name string) *topicKey {
	for i := range topicKeys {
		if topicKeys[i].name == name {
			return &topicKeys[i]
		}
	}
	return nil
}

func suggestTopicKey(name string) string {
	near := nearest(name, func(yield func(string)) {
		for i := range topicKeys {
			yield(topicKeys[i].name)
			for _, synonym := range topicKeys[i].synonyms {
				yield(synonym.name)
			}
		}
	})
	for i := range topicKeys {
		for _, synonym := range topicKeys[i].synonyms {
			if synonym.name == near {
				near = topicKeys[i].name // the broker's name was used for a topic
			}
		}
	}
	if near == "" {
		return "see the list of topic configs"
	}
	return "did you mean " + near + "?"
}
