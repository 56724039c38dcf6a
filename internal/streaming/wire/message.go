package wire

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// API keys with rules of their own on the wire.
const (
	keyProduce            = 0
	keyFetch              = 1
	keyStopReplica        = 5
	keyControlledShutdown = 7
	keyApiVersions        = 18
)

var errShort = errors.New("the message ends too early")

// appendBody appends the request's body. kmsg (up to v1.15.0) has isKRaftController and the
// controller epoch of StopReplica version 4 the wrong way round (StopReplicaRequest.json:
// the flag comes first), so those five bytes are exchanged:
//
//	kmsg:   controllerID int32 | controllerEpoch int32 | isKRaft bool | …
//	Kafka:  controllerID int32 | isKRaft bool | controllerEpoch int32 | …
func appendBody(dst []byte, request kmsg.Request) []byte {
	start := len(dst)
	dst = request.AppendTo(dst)
	if request.Key() == keyStopReplica && request.GetVersion() >= 4 {
		fields := dst[start+4 : start+9]
		flag := fields[4]
		copy(fields[1:], fields[:4])
		fields[0] = flag
	}
	return dst
}

// readBody decodes the request's body. Byte fields (records, group metadata) alias body;
// strings are copies.
func readBody(request kmsg.Request, body []byte) error {
	if err := checkRequest(request, body); err != nil {
		return err
	}
	if request.Key() == keyStopReplica && request.GetVersion() >= 4 {
		// The buffer belongs to this request, and this is the only reader of it.
		fields := body[4:9]
		flag := fields[0]
		copy(fields[:4], fields[1:])
		fields[4] = flag
	}
	return request.ReadFrom(body)
}

// header is what all versions of a request's header begin with.
type header struct {
	key, version  int16
	correlationID int32
}

// appendRequest appends a whole frame.
func appendRequest(dst []byte, request kmsg.Request, correlationID int32, clientID string) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint16(dst, uint16(request.Key()))
	dst = binary.BigEndian.AppendUint16(dst, uint16(request.GetVersion()))
	dst = binary.BigEndian.AppendUint32(dst, uint32(correlationID))
	if request.Key() != keyControlledShutdown || request.GetVersion() > 0 {
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(clientID)))
		dst = append(dst, clientID...)
		if request.IsFlexible() {
			dst = append(dst, 0)
		}
	}
	dst = appendBody(dst, request)
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start-4))
	return dst
}

// readFixedHeader reads the part that all header versions share.
func readFixedHeader(frame []byte) (h header, rest []byte, err error) {
	if len(frame) < 8 {
		return h, nil, errShort
	}
	h.key = int16(binary.BigEndian.Uint16(frame))
	h.version = int16(binary.BigEndian.Uint16(frame[2:]))
	h.correlationID = int32(binary.BigEndian.Uint32(frame[4:]))
	return h, frame[8:], nil
}

// readClientID reads what header version 1 adds. previous is returned if it is the same
// text: a connection's client id hardly ever changes.
func readClientID(rest []byte, previous string) (string, []byte, error) {
	if len(rest) < 2 {
		return "", nil, errShort
	}
	size := int(int16(binary.BigEndian.Uint16(rest)))
	rest = rest[2:]
	if size < -1 {
		return "", nil, fmt.Errorf("client id of %d bytes", size)
	}
	if size <= 0 {
		return "", rest, nil
	}
	if len(rest) < size {
		return "", nil, errShort
	}
	if string(rest[:size]) == previous {
		return previous, rest[size:], nil
	}
	return string(rest[:size]), rest[size:], nil
}

// skipTags passes over a section of tagged fields.
func skipTags(rest []byte) ([]byte, error) {
	count, n := binary.Uvarint(rest)
	if n <= 0 {
		return nil, errShort
	}
	rest = rest[n:]
	for ; count > 0; count-- {
		_, n := binary.Uvarint(rest)
		if n <= 0 {
			return nil, errShort
		}
		rest = rest[n:]
		size, n := binary.Uvarint(rest)
		if n <= 0 || size > uint64(len(rest)-n) {
			return nil, errShort
		}
		rest = rest[n+int(size):]
	}
	return rest, nil
}

// flexibleResponseHeader reports whether a response carries header version 1. An ApiVersions
// response never does, so that a client that does not know the broker's version can read it.
func flexibleResponseHeader(key int16, flexible bool) bool {
	return flexible && key != keyApiVersions
}

// readResponse decodes a response frame after its correlation id.
func readResponse(response kmsg.Response, rest []byte) error {
	if flexibleResponseHeader(response.Key(), response.IsFlexible()) {
		var err error
		if rest, err = skipTags(rest); err != nil {
			return err
		}
	}
	if err := checkResponse(response, rest); err != nil {
		return err
	}
	return response.ReadFrom(rest)
}

// appendResponseHeader appends the response header for a request of this key and version.
func appendResponseHeader(dst []byte, key int16, flexible bool, correlationID int32) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(correlationID))
	if flexibleResponseHeader(key, flexible) {
		dst = append(dst, 0)
	}
	return dst
}
