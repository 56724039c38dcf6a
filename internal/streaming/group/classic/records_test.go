package classic

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestOffsetsSurviveTheLog: what a version lacks must not come back as 0. An offset that came
// back with the expiry 0 was dropped at the first check after a change of coordinators.
func TestOffsetsSurviveTheLog(t *testing.T) {
	for _, offset := range []Offset{
		{Offset: 5, LeaderEpoch: 3, Metadata: "m", CommitMs: 1_700_000_000_000, ExpireMs: NoTimestamp},
		{Offset: 5, LeaderEpoch: -1, Metadata: "m", CommitMs: 1_700_000_000_000, ExpireMs: 1_700_000_001_000}, // no leader epoch in that version
	} {
		got, err := DecodeOffset(encodeOffset(&offset))
		if err != nil || got != offset {
			t.Errorf("%+v became %+v, %v", offset, got, err)
		}
	}
	for version := range int16(newestValueVersionRead + 1) {
		value := kmsg.OffsetCommitValue{Version: version, Offset: 9, LeaderEpoch: 4, CommitTimestamp: 7, ExpireTimestamp: 8}
		got, err := DecodeOffset(value.AppendTo(nil))
		if err != nil {
			t.Fatal(err)
		}
		expire, epoch := NoTimestamp, int32(-1)
		if version == offsetValueWithExpiry {
			expire = 8
		}
		if version >= offsetValueVersion {
			epoch = 4
		}
		if got.ExpireMs != expire || got.LeaderEpoch != epoch {
			t.Errorf("version %d: %+v", version, got)
		}
	}
}

func TestGroupsOfOldVersions(t *testing.T) {
	for version := range int16(newestValueVersionRead + 1) {
		value := kmsg.GroupMetadataValue{Version: version, ProtocolType: "consumer", Generation: 1, CurrentStateTimestamp: 77,
			Members: []kmsg.GroupMetadataValueMember{{MemberID: "a", RebalanceTimeoutMillis: 50, SessionTimeoutMillis: 60}}}
		got, err := DecodeGroup(value.AppendTo(nil))
		if err != nil {
			t.Fatal(err)
		}
		timestamp, timeout := int64(77), int32(50)
		if version < 2 {
			timestamp = -1
		}
		if version < 1 {
			timeout = -1
		}
		if got.CurrentStateTimestamp != timestamp || got.Members[0].RebalanceTimeoutMillis != timeout {
			t.Errorf("version %d: %+v", version, got)
		}
	}
}
