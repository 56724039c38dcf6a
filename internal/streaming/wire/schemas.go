package wire

// The structure of every message, derived from kmsg's decoders by
// TestSchemasAreWhatKmsgReads, which also checks that it still is: go test -run Schemas
// ./internal/streaming/wire -rewrite-schemas. See structure.go for the notation.

var schemas = [...]schema{
	0: { // Produce
		request:  "s?@3- 2 4 [ s@0-12 16@13- [ 4 b? t ] t ] t",
		response: "[ s@0-12 16@13- [ 4 2 8 8@2- 8@5- [@8- 4 s? t ] s?@8- t( 0: 4 4 t ) ] t ] 4@1- t( 0: [ 4 s 4 s? t ] )",
	},
	1: { // Fetch
		request:  "4@0-14 4 4 4@3- 1@4- 4@7- 4@7- [ s@0-12 16@13- [ 4 4@9- 8 4@12- 8@5- 4 t( 0: 16 1: 8 ) ] t ] [@7- s@7-12 16@13- [ 4 ] t ] s@11- t( 0: s? 1: 4 8 t )",
		response: "4@1- 2@7- 4@7- [ s@0-12 16@13- [ 4 2 8 8@4- 8@5- [@4- 8 8 t ] 4@11- b? t( 0: 4 8 t 1: 4 4 t 2: 8 4 t ) ] t ] t( 0: [ 4 s 4 s? t ] )",
	},
	2: { // ListOffsets
		request:  "4 1@2- [ s [ 4 4@4- 8 4@0-0 t ] t ] 4@10- t",
		response: "4@2- [ s [ 4 2 [@0-0 8 ] 8@1- 8@1- 4@4- t ] t ] t",
	},
	3: { // Metadata
		request:  "[ 16@10- s@0-9 s?@10- t ] 1@4- 1@8-10 1@8- t",
		response: "4@3- [ 4 s 4 s?@1- t ] s?@2- 4@1- [ 2 s@0-11 s?@12- 16@10- 1@1- [ 2 4 4 4@7- [ 4 ] [ 4 ] [@5- 4 ] t ] 4@8- t ] 4@8-10 2@13- t",
	},
	4: { // LeaderAndISR
		request:  "4 1@7- 4 8@2- 1@5- [@0-1 s@0-1 4 4 4 4 [ 4 ] 4 [ 4 ] [@3- 4 ] [@3- 4 ] 1@1- 1@6- t ] [@2- s 16@5- [ s@0-1 4 4 4 4 [ 4 ] 4 [ 4 ] [@3- 4 ] [@3- 4 ] 1@1- 1@6- t ] t ] [ 4 s 4 t ] t",
		response: "2 [@0-4 s@0-4 4 2 t ] [@5- 16 [ s@0-4 4 2 t ] t ] t",
	},
	5: { // StopReplica
		request:  "4 4 1@4- 8@1- 1@0-2 [ s 4@0-0 [@1-2 4 ] [@3- 4 4 1 t ] t ] t",
		response: "2 [ s 4 2 t ] t",
	},
	6: { // UpdateMetadata
		request:  "4 1@8- 4 8@5- [@0-4 s@0-4 4 4 4 4 [ 4 ] 4 [ 4 ] [@4- 4 ] t ] [@5- s 16@7- [ s@0-4 4 4 4 4 [ 4 ] 4 [ 4 ] [@4- 4 ] t ] t ] [ 4 s@0-0 4@0-0 [@1- 4 s s@3- 2 t ] s?@2- t ] t",
		response: "2 t",
	},
	7: { // ControlledShutdown
		request:  "4 8@2- t",
		response: "2 [ s 4 t ] t",
	},
	8: { // OffsetCommit
		request:  "s 4@1- s@1- s?@7- 8@2-4 [ s@0-9 16@10- [ 4 8 8@1-1 4@6- s? t ] t ] t",
		response: "4@3- [ s@0-9 16@10- [ 4 2 t ] t ] t",
	},
	9: { // OffsetFetch
		request:  "s@0-7 [@0-7 s [ 4 ] t ] [@8- s s?@9- 4@9- [ s@8-9 16@10- [ 4 ] t ] t ] 1@7- t",
		response: "4@3- [@0-7 s [ 4 8 4@5- s? 2 t ] t ] 2@2-7 [@8- s [ s@8-9 16@10- [ 4 8 4 s? 2 t ] t ] 2 t ] t",
	},
	10: { // FindCoordinator
		request:  "s@0-3 1@1- [@4- s ] t",
		response: "4@1- 2@0-3 s?@1-3 4@0-3 s@0-3 4@0-3 [@4- s 4 s 4 2 s? t ] t",
	},
	11: { // JoinGroup
		request:  "s 4 4@1- s s?@5- s [ s b t ] s?@8- t",
		response: "4@2- 2 4 s?@7- s@0-6 s?@7- s 1@9- s [ s s?@5- b t ] t",
	},
	12: { // Heartbeat
		request:  "s 4 s s?@3- t",
		response: "4@1- 2 t",
	},
	13: { // LeaveGroup
		request:  "s s@0-2 [@3- s s? s?@5- t ] t",
		response: "4@1- 2 [@3- s s? 2 t ] t",
	},
	14: { // SyncGroup
		request:  "s 4 s s?@3- s?@5- s?@5- [ s b t ] t",
		response: "4@1- 2 s?@5- s?@5- b t",
	},
	15: { // DescribeGroups
		request:  "[ s ] 1@3- t",
		response: "4@1- [ 2 s?@6- s s s s [ s s?@4- s s b b t ] 4@3- t ] t",
	},
	16: { // ListGroups
		request:  "[@4- s ] [@5- s ] t",
		response: "4@1- 2 [ s s s@4- s@5- t ] t",
	},
	17: { // SASLHandshake
		request:  "s",
		response: "2 [ s ]",
	},
	18: { // ApiVersions
		request:  "s@3- s@3- s?@5- 4@5- t",
		response: "2 [ 2 2 2 t ] 4@1- t( 0: [ s 2 2 t ] 1: 8 2: [ s 2 2 t ] 3: 1 )",
	},
	19: { // CreateTopics
		request:  "[ s 4 2 [ 4 [ 4 ] t ] [ s s? t ] t ] 4 1@1- t",
		response: "4@2- [ s 16@7- 2 s?@1- 4@5- 2@5- [@5- s s? 1 1 1 t ] t( 0: 2 ) ] t",
	},
	20: { // DeleteTopics
		request:  "[@0-5 s ] [@6- s? 16 t ] 4 t",
		response: "4@1- [ s@0-5 s?@6- 16@6- 2 s?@5- t ] t",
	},
	21: { // DeleteRecords
		request:  "[ s [ 4 8 t ] t ] 4 t",
		response: "4 [ s [ 4 8 2 t ] t ] t",
	},
	22: { // InitProducerID
		request:  "s? 4 8@3- 2@3- t",
		response: "4 2 8 2 t",
	},
	23: { // OffsetForLeaderEpoch
		request:  "4@3- [ s [ 4 4@2- 4 t ] t ] t",
		response: "4@2- [ s [ 2 4 4@1- 8 t ] t ] t",
	},
	24: { // AddPartitionsToTxn
		request:  "s@0-3 8@0-3 2@0-3 [@0-3 s [ 4 ] t ] [@4- s 8 2 1 [ s [ 4 ] t ] t ] t",
		response: "4 2@4- [@4- s [ s [ 4 2 t ] t ] t ] [@0-3 s [ 4 2 t ] t ] t",
	},
	25: { // AddOffsetsToTxn
		request:  "s 8 2 s t",
		response: "4 2 t",
	},
	26: { // EndTxn
		request:  "s 8 2 1 t",
		response: "4 2 8@5- 2@5- t",
	},
	27: { // WriteTxnMarkers
		request:  "[ 8 2 1 [ s [ 4 ] t ] 4 1@2- t ] t",
		response: "[ 8 [ s [ 4 2 t ] t ] t ] t",
	},
	28: { // TxnOffsetCommit
		request:  "s s 8 2 4@3- s@3- s?@3- [ s@0-5 16@6- [ 4 8 4@2- s? t ] t ] t",
		response: "4 [ s@0-5 16@6- [ 4 2 t ] t ] t",
	},
	29: { // DescribeACLs
		request:  "1 s? 1@1- s? s? 1 1 t",
		response: "4 2 s? [ 1 s 1@1- [ s s 1 1 t ] t ] t",
	},
	30: { // CreateACLs
		request:  "[ 1 s 1@1- s s 1 1 t ] t",
		response: "4 [ 2 s? t ] t",
	},
	31: { // DeleteACLs
		request:  "[ 1 s? 1@1- s? s? 1 1 t ] t",
		response: "4 [ 2 s? [ 2 s? 1 s 1@1- s s 1 1 t ] t ] t",
	},
	32: { // DescribeConfigs
		request:  "[ 1 s [ s ] t ] 1@1- 1@3- t",
		response: "4 [ 2 s? 1 s [ s s? 1 1@0-0 1@1- 1 [@1- s s? 1 t ] 1@3- s?@3- t ] t ] t",
	},
	33: { // AlterConfigs
		request:  "[ 1 s [ s s? t ] t ] 1 t",
		response: "4 [ 2 s? 1 s t ] t",
	},
	34: { // AlterReplicaLogDirs
		request:  "[ s [ s [ 4 ] t ] t ] t",
		response: "4 [ s [ 4 2 t ] t ] t",
	},
	35: { // DescribeLogDirs
		request:  "[ s [ 4 ] t ] t",
		response: "4 2@3- [ 2 s [ s [ 4 8 8 1 t ] t ] 8@4- 8@4- 1@5- t ] t",
	},
	36: { // SASLAuthenticate
		request:  "b t",
		response: "2 s? b 8@1- t",
	},
	37: { // CreatePartitions
		request:  "[ s 4 [ [ 4 ] t ] t ] 4 1 t",
		response: "4 [ s 2 s? t ] t",
	},
	38: { // CreateDelegationToken
		request:  "s?@3- s?@3- [ s s t ] 8 t",
		response: "2 s s s@3- s@3- 8 8 8 s b 4 t",
	},
	39: { // RenewDelegationToken
		request:  "b 8 t",
		response: "2 8 4 t",
	},
	40: { // ExpireDelegationToken
		request:  "b 8 t",
		response: "2 8 4 t",
	},
	41: { // DescribeDelegationToken
		request:  "[ s s t ] t",
		response: "2 [ s s s@3- s@3- 8 8 8 s b [ s s t ] t ] 4 t",
	},
	42: { // DeleteGroups
		request:  "[ s ] t",
		response: "4 [ s 2 s?@3- t ] t",
	},
	43: { // ElectLeaders
		request:  "1@1- [ s [ 4 ] t ] 4 t",
		response: "4 2@1- [ s [ 4 2 s? t ] t ] t",
	},
	44: { // IncrementalAlterConfigs
		request:  "[ 1 s [ s 1 s? t ] t ] 1 t",
		response: "4 [ 2 s? 1 s t ] t",
	},
	45: { // AlterPartitionAssignments
		request:  "4 1@1- [ s [ 4 [ 4 ] t ] t ] t",
		response: "4 1@1- 2 s? [ s [ 4 2 s? t ] t ] t",
	},
	46: { // ListPartitionReassignments
		request:  "4 [ s [ 4 ] t ] t",
		response: "4 2 s? [ s [ 4 [ 4 ] [ 4 ] [ 4 ] t ] t ] t",
	},
	47: { // OffsetDelete
		request:  "s [ s [ 4 ] ]",
		response: "2 4 [ s [ 4 2 ] ]",
	},
	48: { // DescribeClientQuotas
		request:  "[ s 1 s? t ] 1 t",
		response: "4 2 s? [ [ s s? t ] [ s 8 t ] t ] t",
	},
	49: { // AlterClientQuotas
		request:  "[ [ s s? t ] [ s 8 1 t ] t ] 1 t",
		response: "4 [ 2 s? [ s s? t ] t ] t",
	},
	50: { // DescribeUserSCRAMCredentials
		request:  "[ s t ] t",
		response: "4 2 s? [ s 2 s? [ 1 4 t ] t ] t",
	},
	51: { // AlterUserSCRAMCredentials
		request:  "[ s 1 t ] [ s 1 4 b b t ] t",
		response: "4 [ s 2 s? t ] t",
	},
	52: { // Vote
		request:  "s? 4@1- [ s [ 4 4 4 16@1- 16@1- 4 8 1@2- t ] t ] t",
		response: "2 [ s [ 4 2 4 4 1 t ] t ] t( 0: [ 4@1- s@1- 2@1- t ] )",
	},
	53: { // BeginQuorumEpoch
		request:  "s? 4@1- [ s [ 4 16@1- 4 4 t ] t ] [@1- s s 2 t ] t",
		response: "2 [ s [ 4 2 4 4 t ] t ] t( 0: [ 4@1- s@1- 2@1- t ] )",
	},
	54: { // EndQuorumEpoch
		request:  "s? [ s [ 4 4 4 [@0-0 4 ] [@1- 4 16 t ] t ] t ] [@1- s s 2 t ] t",
		response: "2 [ s [ 4 2 4 4 t ] t ] t( 0: [ 4@1- s@1- 2@1- t ] )",
	},
	55: { // DescribeQuorum
		request:  "[ s [ 4 t ] t ] t",
		response: "2 s?@2- [ s [ 4 2 s?@2- 4 4 8 [ 4 16@2- 8 8@1- 8@1- t ] [ 4 16@2- 8 8@1- 8@1- t ] t ] t ] [@2- 4 [ s s 2 t ] t ] t",
	},
	56: { // AlterPartition
		request:  "4 8 [ s@0-1 16@2- [ 4 4 [@0-2 4 ] [@3- 4 8 t ] 1@1- 4 t ] t ] t",
		response: "4 2 [ s@0-1 16@2- [ 4 2 4 4 [ 4 ] 1@1- 4 t ] t ] t",
	},
	57: { // UpdateFeatures
		request:  "4 [ s 2 1@0-0 1@1- t ] 1@1- t",
		response: "4 2 s? [@0-1 s 2 s? t ] t",
	},
	58: { // Envelope
		request:  "b b? b t",
		response: "b? 2 t",
	},
	59: { // FetchSnapshot
		request:  "4 4 [ s [ 4 4 8 4 t 8 t( 0: 16 ) ] t ] t( 0: s? )",
		response: "4 2 [ s [ 4 2 8 4 t 8 8 b t( 0: 4 4 t ) ] t ] t( 0: [ 4@1- s@1- 2@1- t ] )",
	},
	60: { // DescribeCluster
		request:  "1 1@1- 1@2- t",
		response: "4 2 s? 1@1- s 4 [ 4 s 4 s? 1@2- t ] 4 t",
	},
	61: { // DescribeProducers
		request:  "[ s [ 4 ] t ] t",
		response: "4 [ s [ 4 2 s? [ 8 4 4 8 4 8 t ] t ] t ] t",
	},
	62: { // BrokerRegistration
		request:  "4 s 16 [ s s 2 2 t ] [ s 2 2 t ] s? 1@1- [@2- 16 ] 8@3- t",
		response: "4 2 8 t",
	},
	63: { // BrokerHeartbeat
		request:  "4 8 8 1 1 t( 0: [ 16 ] 1: [ 16 ] )",
		response: "4 2 1 1 1 t",
	},
	64: { // UnregisterBroker
		request:  "4 t",
		response: "4 2 s? t",
	},
	65: { // DescribeTransactions
		request:  "[ s ] t",
		response: "4 [ 2 s s 4 8 8 2 [ s [ 4 ] t ] t ] t",
	},
	66: { // ListTransactions
		request:  "[ s ] [ 8 ] 8@1- s?@2- t",
		response: "4 2 [ s ] [ s 8 s t ] t",
	},
	67: { // AllocateProducerIDs
		request:  "4 8 t",
		response: "4 2 8 4 t",
	},
	68: { // ConsumerGroupHeartbeat
		request:  "s s 4 s? s? 4 [ s ] s?@1- s? [ 16 [ 4 ] t ] t",
		response: "4 2 s? s? 4 4 {? [ 16 [ 4 ] t ] t } t",
	},
	69: { // ConsumerGroupDescribe
		request:  "[ s ] 1 t",
		response: "4 [ 2 s? s s 4 4 s [ s s? s? 4 s s [ s ] s? [ 16 s [ 4 ] t ] t [ 16 s [ 4 ] t ] t 1@1- t ] 4 t ] t",
	},
	70: { // ControllerRegistration
		request:  "4 16 1 [ s s 2 2 t ] [ s 2 2 t ] t",
		response: "4 2 s? t",
	},
	71: { // GetTelemetrySubscriptions
		request:  "16 t",
		response: "4 2 16 4 [ 1 ] 4 4 1 [ s ] t",
	},
	72: { // PushTelemetry
		request:  "16 4 1 1 b t",
		response: "4 2 t",
	},
	73: { // AssignReplicasToDirs
		request:  "4 8 [ 16 [ 16 [ 4 t ] t ] t ] t",
		response: "4 2 [ 16 [ 16 [ 4 2 t ] t ] t ] t",
	},
	74: { // ListConfigResources
		request:  "[@1- 1 ] t",
		response: "4 2 [ s 1@1- t ] t",
	},
	75: { // DescribeTopicPartitions
		request:  "[ s t ] 4 {? s 4 t } t",
		response: "4 [ 2 s? 16 1 [ 2 4 4 4 [ 4 ] [ 4 ] [ 4 ] [ 4 ] [ 4 ] t ] 4 t ] {? s 4 t } t",
	},
	76: { // ShareGroupHeartbeat
		request:  "s s 4 s? [ s ] t",
		response: "4 2 s? s? 4 4 {? [ 16 [ 4 ] t ] t } t",
	},
	77: { // ShareGroupDescribe
		request:  "[ s ] 1 t",
		response: "4 [ 2 s? s s 4 4 s [ s s? 4 s s [ s ] [ 16 s [ 4 ] t ] t t ] 4 t ] t",
	},
	78: { // ShareFetch
		request:  "s? s? 4 4 4 4 4@1- 4@1- 1@2- 1@2- [ 16 [ 4 4@0-0 [ 8 8 [ 1 ] t ] t ] t ] [ 16 [ 4 ] t ] t",
		response: "4 2 s? 4@1- [ 16 [ 4 2 s? 2 s? 4 4 t b? [ 8 8 2 t ] t ] t ] [ 4 s 4 s? t ] t",
	},
	79: { // ShareAcknowledge
		request:  "s? s? 4 1@2- [ 16 [ 4 [ 8 8 [ 1 ] t ] t ] t ] t",
		response: "4 2 s? 4@2- [ 16 [ 4 2 s? 4 4 t t ] t ] [ 4 s 4 s? t ] t",
	},
	80: { // AddRaftVoter
		request:  "s? 4 4 16 [ s s 2 t ] 1@1- t",
		response: "4 2 s? t",
	},
	81: { // RemoveRaftVoter
		request:  "s? 4 16 t",
		response: "4 2 s? t",
	},
	82: { // UpdateRaftVoter
		request:  "s? 4 4 16 [ s s 2 t ] 2 2 t t",
		response: "4 2 t( 0: 4 4 s 4 t )",
	},
	83: { // InitializeShareGroupState
		request:  "s [ 16 [ 4 4 8 t ] t ] t",
		response: "[ 16 [ 4 2 s? t ] t ] t",
	},
	84: { // ReadShareGroupState
		request:  "s [ 16 [ 4 4 t ] t ] t",
		response: "[ 16 [ 4 2 s? 4 8 [ 8 8 1 2 t ] t ] t ] t",
	},
	85: { // WriteShareGroupState
		request:  "s [ 16 [ 4 4 4 8 4@1- [ 8 8 1 2 t ] t ] t ] t",
		response: "[ 16 [ 4 2 s? t ] t ] t",
	},
	86: { // DeleteShareGroupState
		request:  "s [ 16 [ 4 t ] t ] t",
		response: "[ 16 [ 4 2 s? t ] t ] t",
	},
	87: { // ReadShareGroupStateSummary
		request:  "s [ 16 [ 4 4 t ] t ] t",
		response: "[ 16 [ 4 2 s? 4 4 8 4@1- t ] t ] t",
	},
	88: { // StreamsGroupHeartbeat
		request:  "s s 4 4 s? s? 4 {? 4 [ s [ s ] [ s ] [ s 4 2 [ s s t ] t ] [ s ] [ s 4 2 [ s s t ] t ] [ [ 2 ] [ 2 ] [ 2 ] t ] t ] t } [ s [ 4 ] t ] [ s [ 4 ] t ] [ s [ 4 ] t ] s? {? s 2 t } [ s s t ] [ s 4 8 t ] [ s 4 8 t ] 1 t",
		response: "4 2 s? s 4 4 4@0-0 4 8@1- [ 1 s t ] [ s [ 4 ] t ] [ s [ 4 ] t ] [ s [ 4 ] t ] 1@1- 4 [ s 2 t [ s [ 4 ] t ] [ s [ 4 ] t ] t ] t",
	},
	89: { // StreamsGroupDescribe
		request:  "[ s ] 1 1@1- t",
		response: "4 [ 2 s? s s 4 4 {? 4 [ s [ s ] [ s ] [ s 4 2 [ s s t ] t ] [ s 4 2 [ s s t ] t ] t ] t } [ s 4 s? s? s s 4 s {? s 2 t } [ s s t ] [ s 4 8 t ] [ s 4 8 t ] [ s [ 4 ] t ] [ s [ 4 ] t ] [ s [ 4 ] t ] t [ s [ 4 ] t ] [ s [ 4 ] t ] [ s [ 4 ] t ] t 1 t ] 4 {?@1- [ s [ s 1 [ s ] s? [ s ] [ s ] t ] t ] [ s 1 [ s ] s? [ s ] [ s ] t s 1 [ s ] s? [ s ] [ s ] t t ] t } 1@1- s?@1- t ] t",
	},
	90: { // DescribeShareGroupOffsets
		request:  "[ s [ s [ 4 ] t ] t ] t",
		response: "4 [ s [ s 16 [ 4 8 4 8@1- 2 s? t ] t ] 2 s? t ] t",
	},
	91: { // AlterShareGroupOffsets
		request:  "s [ s [ 4 8 t ] t ] t",
		response: "4 2 s? [ s 16 [ 4 2 s? t ] t ] t",
	},
	92: { // DeleteShareGroupOffsets
		request:  "s [ s t ] t",
		response: "4 2 s? [ s 16 2 s? t ] t",
	},
	93: { // StreamsGroupTopologyDescriptionUpdate
		request:  "s s 4 [ s [ s 1 [ s ] s? [ s ] [ s ] t ] t ] [ s 1 [ s ] s? [ s ] [ s ] t s 1 [ s ] s? [ s ] [ s ] t t ] t t",
		response: "4 2 s? t",
	},
	94: { // UnregisterController
		request:  "4 t",
		response: "4 2 s? t",
	},
}
