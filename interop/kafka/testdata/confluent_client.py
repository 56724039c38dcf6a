"""Creates a topic, produces (idempotent), consumes in a cooperative group; a transactional id fails at once: confluent-kafka."""
import sys
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

bootstrap, topic = sys.argv[1], sys.argv[2]
count = 5000

admin = AdminClient({"bootstrap.servers": bootstrap})
for future in admin.create_topics([NewTopic(topic, num_partitions=6, replication_factor=3)]).values():
    future.result(30)

placed, failed = {}, []


def delivered(error, message):
    if error:
        failed.append(error)
    else:
        placed[(message.partition(), message.offset())] = message.value()


producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "compression.type": "lz4", "linger.ms": 2})
for i in range(count):
    producer.produce(topic, key=b"%d" % (i % 100), value=b"line %d" % i, on_delivery=delivered)
    producer.poll(0)
assert producer.flush(60) == 0 and not failed, failed
assert len(placed) == count, f"{len(placed)} places for {count} records"


def consumer(name):
    c = Consumer({"bootstrap.servers": bootstrap, "group.id": topic + "-group", "auto.offset.reset": "earliest", "client.id": name,
                  "partition.assignment.strategy": "cooperative-sticky", "enable.auto.commit": False})
    c.subscribe([topic])
    return c


got = {}
members = [consumer("a"), consumer("b")]
deadline = time.time() + 90
while len(got) < count and time.time() < deadline:
    for member in members:
        for message in member.consume(500, 0.2):
            assert not message.error(), message.error()
            got[(message.partition(), message.offset())] = message.value()
assert got == placed, f"read {len(got)} of {len(placed)}"
for member in members:
    try:
        member.commit(asynchronous=False)
    except KafkaException as e:
        if e.args[0].code() != KafkaError._NO_OFFSET:
            raise
    member.close()

groups = admin.list_consumer_groups().result(30)
assert any(g.group_id == topic + "-group" for g in groups.valid), "the group is not listed"

transactional = Producer({"bootstrap.servers": bootstrap, "transactional.id": "tx"})
began = time.time()
try:
    transactional.init_transactions(60)
    raise SystemExit("a transactional producer was not refused")
except KafkaException as e:
    print("a transactional id is refused:", e.args[0])
    assert not e.args[0].retriable() and time.time() - began < 50, "the refusal is not final"

for future in admin.delete_topics([topic]).values():
    future.result(30)
print("confluent-kafka is content:", count, "records")
