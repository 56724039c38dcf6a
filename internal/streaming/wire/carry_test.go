package wire

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func heartbeat(version int16) *kmsg.HeartbeatRequest {
	request := kmsg.NewPtrHeartbeatRequest()
	request.Version, request.Group = version, "g"
	return request
}

func TestCarriedRequestsGoThroughTheCodecs(t *testing.T) {
	server := NewServer(ServerOptions{})
	server.Handle(12, 0, 4, func(r *Request) {
		if got := r.Body.(*kmsg.HeartbeatRequest); got.Group != "g" || r.ClientID != "me" || r.Listener != "L" {
			t.Errorf("got %+v from %q on %q", got, r.ClientID, r.Listener)
		}
		response := r.Body.ResponseKind().(*kmsg.HeartbeatResponse)
		response.ErrorCode = 27
		r.Reply(response)
	})
	for version := range int16(5) {
		var outcomes []Outcome
		if _, err := server.Carry(heartbeat(version), "me", "L", 7, func(o Outcome) { outcomes = append(outcomes, o) }); err != nil {
			t.Fatal(err)
		}
		if len(outcomes) != 1 || outcomes[0].Response.(*kmsg.HeartbeatResponse).ErrorCode != 27 {
			t.Errorf("version %d: %+v", version, outcomes)
		}
	}
	if _, err := server.Carry(heartbeat(5), "me", "L", 7, nil); err == nil {
		t.Error("a version that is not served was carried")
	}
}

func TestCarriedRequestsEndWithoutAnAnswer(t *testing.T) {
	for name, end := range map[string]func(*Request){"closed": (*Request).CloseConnection, "no reply": (*Request).NoReply} {
		server := NewServer(ServerOptions{})
		var held *Request
		server.Handle(12, 0, 4, func(r *Request) { held = r })
		var outcomes []Outcome
		hangUp, err := server.Carry(heartbeat(4), "", "", 7, func(o Outcome) { outcomes = append(outcomes, o) })
		if err != nil {
			t.Fatal(err)
		}
		told := 0
		held.OnClose(func() { told++ })
		hangUp()
		if told != 1 {
			t.Errorf("%s: the handler was told %d times that nobody waits", name, told)
		}
		end(held)
		if len(outcomes) != 1 || outcomes[0].Response != nil || outcomes[0].Closed != (name == "closed") {
			t.Errorf("%s: %+v", name, outcomes)
		}
	}
}
