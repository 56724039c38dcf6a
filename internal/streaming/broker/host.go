package broker

import "os"

// machineName is what Kafka advertises when no host is configured: the machine's own name.
func machineName() (string, error) { return os.Hostname() }
