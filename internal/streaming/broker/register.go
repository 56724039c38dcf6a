package broker

// registerHandlers is the one list of what this broker serves, by API key.
func (b *Broker) registerHandlers() {
	for _, register := range []func(){
		b.registerProduce,                     // 0
		b.registerFetch,                       // 1
		b.registerListOffsets,                 // 2
		b.registerMetadata,                    // 3
		b.registerLeaderAndISR,                // 4
		b.registerStopReplica,                 // 5
		b.registerUpdateMetadata,              // 6
		b.registerControlledShutdown,          // 7
		b.registerOffsetCommit,                // 8
		b.registerOffsetFetch,                 // 9
		b.registerFindCoordinator,             // 10
		b.registerJoinGroup,                   // 11
		b.registerHeartbeat,                   // 12
		b.registerLeaveGroup,                  // 13
		b.registerSyncGroup,                   // 14
		b.registerDescribeGroups,              // 15
		b.registerListGroups,                  // 16
		b.registerSASLHandshake,               // 17
		b.registerApiVersions,                 // 18
		b.registerCreateTopics,                // 19
		b.registerDeleteTopics,                // 20
		b.registerDeleteRecords,               // 21
		b.registerInitProducerID,              // 22
		b.registerOffsetForLeaderEpoch,        // 23
		b.registerDescribeACLs,                // 29
		b.registerCreateACLs,                  // 30
		b.registerDeleteACLs,                  // 31
		b.registerDescribeConfigs,             // 32
		b.registerAlterConfigs,                // 33
		b.registerDescribeLogDirs,             // 35
		b.registerSASLAuthenticate,            // 36
		b.registerCreatePartitions,            // 37
		b.registerCreateDelegationToken,       // 38
		b.registerRenewDelegationToken,        // 39
		b.registerExpireDelegationToken,       // 40
		b.registerDescribeDelegationToken,     // 41
		b.registerDeleteGroups,                // 42
		b.registerElectLeaders,                // 43
		b.registerIncrementalAlterConfigs,     // 44
		b.registerAlterPartitionReassignments, // 45
		b.registerListPartitionReassignments,  // 46
		b.registerOffsetDelete,                // 47
		b.registerAlterPartition,              // 56
		b.registerDescribeCluster,             // 60
		b.registerDescribeProducers,           // 61
		b.registerAllocateProducerIDs,         // 67
		b.registerConsumerGroupHeartbeat,      // 68
		b.registerConsumerGroupDescribe,       // 69
	} {
		register()
	}
}
