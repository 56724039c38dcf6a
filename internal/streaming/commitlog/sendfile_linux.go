package commitlog

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// sendfile sends the slice from the page cache, with an explicit offset: the descriptor is
// shared, its own position is nobody's. handled is false if this connection or file cannot.
func (s *Slice) sendfile(conn net.Conn) (sent int64, handled bool, err error) {
	file := s.file.OSFile()
	tcp, ok := conn.(*net.TCPConn)
	if file == nil || !ok {
		return 0, false, nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return 0, true, err
	}
	source := int(file.Fd())
	position := s.position
	var sendErr error
	waitErr := raw.Write(func(target uintptr) (done bool) {
		for sent < int64(s.size) {
			n, err := unix.Sendfile(int(target), source, &position, s.size-int(sent))
			sent += int64(max(n, 0))
			switch {
			case err == unix.EINTR:
			case err == unix.EAGAIN:
				return false // wait until the socket takes more
			case err != nil:
				sendErr = fmt.Errorf("commitlog: sendfile %s: %w", s.cached.path(), err)
				return true
			case n == 0:
				return true // the file ends early
			}
		}
		return true
	})
	if sendErr == nil {
		sendErr = waitErr
	}
	return sent, true, sendErr
}
