// Package port takes the TCP ports that servers listen on, and says in words what to do when
// one cannot be taken. It knows nothing of who listens.
package port

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strconv"
	"syscall"
)

// Max is the highest port.
const Max = 65535

// Listen takes an address, host:port with port 0 for a free one. setting is the key or flag
// that the address comes from; errors name it.
func Listen(setting, address string) (net.Listener, error) {
	if _, _, err := Split(setting, address); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, explain(setting, address, err)
	}
	return listener, nil
}

// Check tells whether an address could be taken now. It is for finding the likeliest mistake
// before anything is touched; somebody else may still be faster.
func Check(setting, address string) error {
	listener, err := Listen(setting, address)
	if err != nil {
		return err
	}
	return listener.Close()
}

// Split takes an address apart.
func Split(setting, address string) (host string, number int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fmt.Errorf("%s: %q is not host:port (an IPv6 host stands in brackets)", setting, address)
	}
	number, err = strconv.Atoi(text)
	if err != nil || number < 0 || number > Max {
		return "", 0, fmt.Errorf("%s: %q has no port from 0 to %d", setting, address, Max)
	}
	return host, number, nil
}

func explain(setting, address string, err error) error {
	var lookup *net.DNSError
	remedy := "change " + setting
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		remedy = "stop the server that has it or change " + setting
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		remedy = "this machine does not have that address: change " + setting
	case errors.Is(err, fs.ErrPermission):
		remedy = "ports below 1024 need privileges: change " + setting
	case errors.As(err, &lookup):
		remedy = "the name is not known here: change " + setting
	}
	return fmt.Errorf("%s: cannot listen on %s: %w; %s", setting, address, err, remedy)
}
