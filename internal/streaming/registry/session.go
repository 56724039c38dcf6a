package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/zkclient"
)

// SavedSession is what a broker keeps of its ZooKeeper session on disk, so that its next
// incarnation can close it instead of waiting for it to expire. It is a credential: whoever
// has the password can end the session. It is bound to the ensemble and the cluster, so
// that a copied data directory cannot close a session elsewhere.
type SavedSession struct {
	Version   int            `json:"version"` // 1
	Servers   string         `json:"servers"`
	ClusterID string         `json:"cluster_id"`
	BrokerID  int32          `json:"broker_id"`
	ID        jute.SessionID `json:"session_id,string"`
	Password  []byte         `json:"password"`
}

// Session is the client's form.
func (s *SavedSession) Session() zkclient.Session {
	return zkclient.Session{ID: s.ID, Password: s.Password}
}

const savedSessionVersion = 1

// SaveSession writes the session for the broker's next incarnation, readable by its owner
// alone. Call it after connecting and before registering; the caller holds the lock of the
// directory.
func SaveSession(path string, session SavedSession) error {
	session.Version = savedSessionVersion
	data, err := json.Marshal(session)
	if err != nil {
		return fmt.Errorf("save the session: %w", err)
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp") // mode 0600
	if err != nil {
		return fmt.Errorf("save the session: %w", err)
	}
	_, err = temporary.Write(append(data, '\n'))
	if closeErr := temporary.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		_ = os.Remove(temporary.Name())
		return fmt.Errorf("save the session to %s: %w", path, err)
	}
	return nil
}

// LoadSession reads what SaveSession wrote. ok is false if there is nothing usable: no
// file, another ensemble or cluster, another broker.
func LoadSession(path, servers, clusterID string, brokerID int32) (saved SavedSession, ok bool, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return saved, false, nil
	}
	if err != nil {
		return saved, false, fmt.Errorf("read the saved session: %w", err)
	}
	if err := json.Unmarshal(data, &saved); err != nil {
		return saved, false, fmt.Errorf("the saved session %s is not readable (delete it and wait for the old session to expire): %w", path, err)
	}
	if saved.Version != savedSessionVersion {
		return saved, false, fmt.Errorf("the saved session %s has version %d, this program knows version %d", path, saved.Version, savedSessionVersion)
	}
	matches := saved.Servers == servers && saved.ClusterID == clusterID && saved.BrokerID == brokerID && saved.ID != 0
	return saved, matches, nil
}

// RemoveSession forgets the saved session after a clean end.
func RemoveSession(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the saved session: %w", err)
	}
	return nil
}
