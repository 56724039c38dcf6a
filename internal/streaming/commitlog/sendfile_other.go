//go:build !linux

package commitlog

import "net"

// sendfile is not used here: the bytes go through a buffer.
func (s *Slice) sendfile(net.Conn) (sent int64, handled bool, err error) { return 0, false, nil }
