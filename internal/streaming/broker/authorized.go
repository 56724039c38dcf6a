package broker

// Without an authorizer everybody may do everything: these are all the operations that there
// are on a kind of resource, one bit each (AclEntry.supportedOperations). They are given only
// where the client asks for them.
const (
	topicOperations   int32 = 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<10 | 1<<11
	groupOperations   int32 = 1<<3 | 1<<6 | 1<<8
	clusterOperations int32 = 1<<5 | 1<<7 | 1<<8 | 1<<9 | 1<<10 | 1<<11 | 1<<12
)
