package config

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"understudy/internal/streaming/cluster"
)

// securityProtocols maps listener names to protocols (listener.security.protocol.map).
func (s *settings) securityProtocols() map[string]string {
	protocols := map[string]string{}
	for _, item := range s.list("listener.security.protocol.map") {
		name, protocol, found := strings.Cut(item, ":")
		name, protocol = strings.ToUpper(strings.TrimSpace(name)), strings.ToUpper(strings.TrimSpace(protocol))
		if !found || name == "" {
			s.problems.add("listener.security.protocol.map", item, "not of the form NAME:PROTOCOL", "write NAME:PLAINTEXT")
			continue
		}
		if !contains([]string{"PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"}, protocol) {
			s.problems.add("listener.security.protocol.map", item, "no security protocol "+strconv.Quote(protocol), "write "+name+":PLAINTEXT")
			continue
		}
		protocols[name] = protocol
	}
	return protocols
}

// endpoints parses NAME://host:port,… and refuses what is not PLAINTEXT.
func (s *settings) endpoints(key string, protocols map[string]string) []cluster.Endpoint {
	var endpoints []cluster.Endpoint
	names, ports := map[string]bool{}, map[string]bool{}
	for _, item := range s.list(key) {
		endpoint, reason := parseEndpoint(item)
		if reason != "" {
			s.problems.add(key, item, reason, "write NAME://host:port, for example PLAINTEXT://127.0.0.1:9092")
			continue
		}
		protocol, known := protocols[endpoint.Listener]
		switch {
		case !known:
			s.problems.add(key, item, "listener name "+endpoint.Listener+" has no security protocol",
				"add "+endpoint.Listener+":PLAINTEXT to listener.security.protocol.map")
			continue
		case protocol != "PLAINTEXT":
			s.problems.add(key, item, "a security setting that is not enforced yet (the listener is "+protocol+")",
				"use PLAINTEXT to run without this protection")
			continue
		case names[endpoint.Listener]:
			s.problems.add(key, item, "listener name "+endpoint.Listener+" stands twice", "give each listener a name of its own")
			continue
		}
		endpoint.Protocol = protocol
		names[endpoint.Listener] = true
		address := net.JoinHostPort(endpoint.Host, strconv.Itoa(int(endpoint.Port)))
		if key == "listeners" && endpoint.Port != 0 && ports[address] {
			s.problems.add(key, item, "address "+address+" stands twice", "give each listener a port of its own")
			continue
		}
		ports[address] = true
		endpoints = append(endpoints, endpoint)
	}
	return endpoints
}

func parseEndpoint(text string) (endpoint cluster.Endpoint, reason string) {
	name, address, found := strings.Cut(text, "://")
	if !found || name == "" {
		return endpoint, "not an address with a listener name"
	}
	separator := strings.LastIndexByte(address, ':')
	if separator < 0 {
		return endpoint, "has no port"
	}
	port, err := strconv.ParseUint(address[separator+1:], 10, 16)
	if err != nil {
		return endpoint, "has no port from 0 to 65535"
	}
	host := address[:separator]
	if strings.HasPrefix(host, "[") != strings.HasSuffix(host, "]") {
		return endpoint, "has unbalanced brackets"
	}
	bracketed := strings.HasPrefix(host, "[")
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if strings.ContainsAny(host, "/ []") || strings.ContainsRune(host, ':') && !validIPv6(host, bracketed) {
		return endpoint, "has no valid host"
	}
	return cluster.Endpoint{Listener: strings.ToUpper(name), Host: host, Port: int32(port)}, ""
}

func validIPv6(host string, bracketed bool) bool {
	address, err := netip.ParseAddr(host)
	return bracketed && err == nil && address.Is6()
}

// listeners fills the listeners, the advertised ones and the inter-broker one.
func (s *settings) listeners(b *Broker) {
	protocols := s.securityProtocols()
	b.Listeners = s.endpoints("listeners", protocols)
	s.require(len(s.list("listeners")) > 0, "listeners", "there is none", "write PLAINTEXT://:9092")
	advertisedKey := "listeners"
	b.AdvertisedListeners = append([]cluster.Endpoint(nil), b.Listeners...)
	if s.str("advertised.listeners") != "" {
		advertisedKey = "advertised.listeners"
		b.AdvertisedListeners = s.endpoints("advertised.listeners", protocols)
	}
	for _, endpoint := range b.AdvertisedListeners {
		if endpoint.Host == "0.0.0.0" || endpoint.Host == "::" {
			s.problems.add(advertisedKey, endpoint.Listener+"://"+net.JoinHostPort(endpoint.Host, strconv.Itoa(int(endpoint.Port))),
				"nobody can connect to "+endpoint.Host, "set advertised.listeners to an address that clients and brokers reach")
		}
		if !hasListener(b.Listeners, endpoint.Listener) && advertisedKey == "advertised.listeners" && len(b.Listeners) > 0 {
			s.problems.add(advertisedKey, endpoint.Listener, "is not among the listeners", "add it to listeners or remove it here")
		}
	}
	s.interBroker(b, protocols)
}

func (s *settings) interBroker(b *Broker, protocols map[string]string) {
	protocol := s.str("security.inter.broker.protocol")
	_, protocolGiven := s.values["security.inter.broker.protocol"]
	name := strings.ToUpper(s.str("inter.broker.listener.name"))
	key := "inter.broker.listener.name"
	switch {
	case name != "" && protocolGiven:
		s.problems.add(key, name, "security.inter.broker.protocol is set too", "keep one of them")
		return
	case name == "":
		name, key = protocol, "security.inter.broker.protocol"
		if protocol != "PLAINTEXT" {
			s.refuseSecurity(key, protocol, "encrypts or authenticates the traffic between brokers")
			return
		}
	case protocols[name] != "" && protocols[name] != "PLAINTEXT":
		s.refuseSecurity(key, name, "encrypts or authenticates the traffic between brokers")
		return
	}
	b.InterBrokerListener = name
	if !hasListener(b.AdvertisedListeners, name) && len(b.AdvertisedListeners) > 0 {
		s.problems.add(key, name, "no advertised listener has this name",
			"add it to advertised.listeners, or name one of them in inter.broker.listener.name")
	}
}

func hasListener(endpoints []cluster.Endpoint, name string) bool {
	for _, endpoint := range endpoints {
		if endpoint.Listener == name {
			return true
		}
	}
	return false
}
