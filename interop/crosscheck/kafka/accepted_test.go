package kafka

import (
	"strings"
)

// acceptance is a difference that is meant to be.
type acceptance struct {
	row   string // of docs/compatibility.md, section Kafka
	match func(x *sent, d difference) bool
}

func (a *acceptance) covers(x *sent, d difference) bool { return a.match(x, d) }

// accepted are the differences that are meant to be.
var accepted = []acceptance{
	{"APIs that are not served", func(_ *sent, d difference) bool { return strings.HasSuffix(d.place(), "ApiVersions.ApiKeys") }},
	{"Documentation of configuration keys", func(_ *sent, d difference) bool {
		return strings.HasSuffix(d.place(), ".Documentation") && d.candidate != "null"
	}},
	{"Which records of a batch were refused", func(x *sent, d difference) bool {
		return x.step.key == keyProduce && d.candidate == "null" && (strings.HasSuffix(d.place(), ".ErrorMessage") || strings.HasSuffix(d.place(), ".ErrorRecords"))
	}},
	{"Which of CORRUPT_MESSAGE and INVALID_RECORD", func(x *sent, d difference) bool {
		refused := func(code string) bool { return code == "2" || code == "87" || code == "-1" }
		switch {
		case x.step.key != keyProduce:
			return false
		case strings.HasSuffix(d.place(), ".LogStartOffset"):
			return d.reference == "-1" || d.candidate == "-1"
		}
		failed := d.reference == "-1" && (d.candidate == "76" || d.candidate == "21") // over the codec, before it looks at the acks
		return strings.HasSuffix(d.place(), ".ErrorCode") && refused(d.reference) && (refused(d.candidate) || failed) || strings.HasSuffix(d.place(), ".ErrorRecords")
	}},
	{"Aborted transactions where no records fit", func(_ *sent, d difference) bool {
		return d.place() == "Fetch.Topics.Partitions.AbortedTransactions" && (d.reference == "[]" && d.candidate == "null" || d.reference == "null" && d.candidate == "[]")
	}},
	{"Topics that were deleted while a fetch session holds them", func(x *sent, d difference) bool {
		return d.place() == "Fetch.Topics.Partitions.ErrorCode" && (d.reference == "3" || d.reference == "103") && d.candidate == "100"
	}},
	{"The default of zookeeper.session.timeout.ms", func(_ *sent, d difference) bool {
		return strings.HasPrefix(d.place(), "DescribeConfigs.") && d.reference == `"18000"` && d.candidate == `"3000"`
	}},
	{"Texts of error messages", func(_ *sent, d difference) bool {
		return strings.HasSuffix(d.place(), ".ErrorMessage") && d.reference != "null" && d.candidate != "null"
	}},
}
