package trial

import (
	"slices"
	"testing"
)

func TestLedgerForgetsReadings(t *testing.T) {
	ledger := NewLedger()
	for n := range 2 {
		ledger.Send([]byte{byte(n)})
		ledger.Acknowledge(n, 0, int64(n))
		ledger.Read(n, []byte{byte(n)}, 0, int64(n))
	}
	ledger.Read(0, []byte{7}, 0, 1)
	ledger.Forget()
	ledger.Read(1, []byte{1}, 0, 1)
	if got := ledger.Account(); got.Acknowledged != 2 || got.Read != 1 || got.Lost != 1 || got.Corrupted != 0 {
		t.Errorf("after Forget and one reading: %+v", got)
	}
}

func TestLedgerFindsWhatIsWrong(t *testing.T) {
	value := func(n int) []byte { return []byte{byte(n)} }
	send := func(l *Ledger, count int) {
		for n := range count {
			l.Send(value(n))
			l.Acknowledge(n, 0, int64(n))
		}
	}
	for name, test := range map[string]struct {
		read func(*Ledger)
		want Account
	}{
		"clean": {
			read: func(l *Ledger) {
				for n := range 3 {
					l.Read(n, value(n), 0, int64(n))
				}
				l.Read(1, value(1), 0, 1) // delivered again after a rebalance: not doubled
			},
			want: Account{Sent: 3, Acknowledged: 3, Read: 3},
		},
		"lost": {
			read: func(l *Ledger) { l.Read(0, value(0), 0, 0); l.Read(2, value(2), 0, 2) },
			want: Account{Sent: 3, Acknowledged: 3, Read: 2, Lost: 1},
		},
		"doubled": {
			read: func(l *Ledger) {
				for n := range 3 {
					l.Read(n, value(n), 0, int64(n))
				}
				l.Read(2, value(2), 0, 3)
			},
			want: Account{Sent: 3, Acknowledged: 3, Read: 3, Doubled: 1, Places: []Place{{0, 2}, {0, 3}}},
		},
		"reordered": {
			read: func(l *Ledger) {
				l.Read(1, value(1), 0, 0)
				l.Read(0, value(0), 0, 1)
				l.Read(2, value(2), 0, 2)
			},
			want: Account{Sent: 3, Acknowledged: 3, Read: 3, Reordered: 1, Corrupted: 2},
		},
		"other bytes": {
			read: func(l *Ledger) {
				l.Read(0, value(9), 0, 0)
				l.Read(1, value(1), 0, 1)
				l.Read(2, value(2), 0, 2)
			},
			want: Account{Sent: 3, Acknowledged: 3, Read: 3, Corrupted: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			ledger := NewLedger()
			send(ledger, 3)
			test.read(ledger)
			got := ledger.Account()
			got.Examples = nil
			if got.Sent != test.want.Sent || got.Acknowledged != test.want.Acknowledged || got.Read != test.want.Read ||
				got.Lost != test.want.Lost || got.Doubled != test.want.Doubled || got.Reordered != test.want.Reordered || got.Corrupted != test.want.Corrupted {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
			if want := test.want.Places; want != nil && !slices.Equal(got.Places, want) {
				t.Errorf("places %v, want %v", got.Places, want)
			}
			if got.Clean() != (name == "clean") {
				t.Errorf("Clean() = %v", got.Clean())
			}
		})
	}
}
