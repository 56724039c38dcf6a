"""Creates a topic, produces, consumes in a group, commits, resumes: kafka-python."""
import sys

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

bootstrap, topic = sys.argv[1].split(","), sys.argv[2]
count = 3000

admin = KafkaAdminClient(bootstrap_servers=bootstrap)
admin.create_topics([NewTopic(name=topic, num_partitions=4, replication_factor=3)])

producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", compression_type="gzip", linger_ms=5)
futures = [producer.send(topic, key=b"%d" % (i % 50), value=b"line %d" % i, headers=[("n", b"%d" % i)]) for i in range(count)]
producer.flush(60)
placed = {}
for i, future in enumerate(futures):
    metadata = future.get(timeout=30)
    placed[(metadata.partition, metadata.offset)] = b"line %d" % i
assert len(placed) == count, f"{len(placed)} places for {count} records"
producer.close()


def read(limit):
    consumer = KafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=topic + "-group", auto_offset_reset="earliest",
                             enable_auto_commit=False, consumer_timeout_ms=60000)
    got = {}
    for record in consumer:
        got[(record.partition, record.offset)] = record.value
        if len(got) == limit:
            break
    consumer.commit()
    consumer.close()
    return got


first = read(1000)
second = read(count - 1000)
overlap = set(first) & set(second)
# What was prefetched and not returned by the first consumer is not committed, so nothing may be missing;
# iteration may have advanced positions only for records handed out.
assert not overlap, f"{len(overlap)} records were read twice although they were committed"
assert {**first, **second} == placed, "what was read is not what was written"

consumer = KafkaConsumer(bootstrap_servers=bootstrap)
ends = consumer.end_offsets([TopicPartition(topic, p) for p in range(4)])
assert sum(ends.values()) == count, ends
begins = consumer.beginning_offsets([TopicPartition(topic, p) for p in range(4)])
assert sum(begins.values()) == 0, begins
consumer.close()
admin.delete_topics([topic])
admin.close()
print("kafka-python is content:", count, "records")
