package port

import (
	"net"
	"strings"
	"testing"
)

func TestErrorsSayWhatToDo(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, test := range []struct {
		name, address string
		want          []string
	}{
		{"in use", taken.Addr().String(), []string{taken.Addr().String(), "in use", "stop the server", "listeners"}},
		{"not ours", "192.0.2.1:0", []string{"192.0.2.1", "does not have that address"}},
		{"no port", "localhost", []string{`"localhost"`, "host:port"}},
		{"bare IPv6", "::1", []string{`"::1"`, "brackets"}},
		{"name for a port", "localhost:kafka", []string{"localhost:kafka", "65535"}},
		{"port too large", "127.0.0.1:65536", []string{"127.0.0.1:65536", "65535"}},
		{"port negative", "127.0.0.1:-1", []string{"127.0.0.1:-1", "from 0"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := Check("listeners", test.address)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}

func TestCheckLetsGo(t *testing.T) {
	listener, err := Listen("listeners", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Check("listeners", address); err != nil {
			t.Fatal(err)
		}
	}
}
