package broker

// registerHandlers is the one list of what this broker serves, by API key.
func (b *Broker) registerHandlers() {
	for _, register := range []func(){
		b.registerProduce,              // 0
		b.registerFetch,                // 1
		b.registerListOffsets,          // 2
		b.registerMetadata,             // 3
		b.registerLeaderAndISR,         // 4
		b.registerStopReplica,          // 5
		b.registerUpdateMetadata,       // 6
		b.registerApiVersions,          // 18
		b.registerOffsetForLeaderEpoch, // 23
	} {
		register()
	}
}
