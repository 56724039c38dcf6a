package cluster

import "testing"

// The values are Java's.
func TestJavaStringHash(t *testing.T) {
	for text, want := range map[string]int32{
		"": 0, "a": 97, "hello": 99162322, "polygenelubricants": -1 << 31, "\U0001F600": 1772899,
	} {
		if got := JavaStringHash(text); got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
}

func TestInternalPartition(t *testing.T) {
	if got := InternalPartition("polygenelubricants", 50); got != 0 {
		t.Errorf("the smallest hash goes to partition %d, want 0", got)
	}
	if got := InternalPartition("hello", 50); got != 99162322%50 {
		t.Errorf("hello goes to partition %d", got)
	}
}

func TestTopicID(t *testing.T) {
	for range 100 {
		id := NewTopicID()
		back, err := ParseTopicID(id.String())
		if err != nil || back != id || id.IsZero() || len(id.String()) != 22 {
			t.Fatalf("%s comes back as %s, %v", id, back, err)
		}
	}
	for _, text := range []string{"", "too short", "AAAAAAAAAAAAAAAAAAAAAAAA", "!!!!!!!!!!!!!!!!!!!!!!"} {
		if _, err := ParseTopicID(text); err == nil {
			t.Errorf("%q is taken for an id", text)
		}
	}
}
