// Creates a topic, produces, consumes in a group: kafkajs.
const { Kafka, logLevel, CompressionTypes } = require('kafkajs')

const [bootstrap, topic] = process.argv.slice(2)
const count = 2000
const kafka = new Kafka({ clientId: 'interop', brokers: bootstrap.split(','), logLevel: logLevel.ERROR })

async function main() {
  const admin = kafka.admin()
  await admin.connect()
  await admin.createTopics({ topics: [{ topic, numPartitions: 4, replicationFactor: 3 }], waitForLeaders: true })

  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 })
  await producer.connect()
  for (let from = 0; from < count; from += 200) {
    const messages = []
    for (let i = from; i < from + 200; i++) messages.push({ key: `k${i % 20}`, value: `line ${i}`, headers: { n: `${i}` } })
    await producer.send({ topic, acks: -1, compression: CompressionTypes.GZIP, messages })
  }
  await producer.disconnect()

  const consumer = kafka.consumer({ groupId: `${topic}-group` })
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  const got = new Set()
  await new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`read ${got.size} of ${count}`)), 60000)
    consumer.run({
      eachMessage: async ({ message }) => {
        got.add(message.value.toString())
        if (got.size === count) { clearTimeout(timer); resolve() }
      },
    }).catch(reject)
  })
  await consumer.disconnect()
  for (let i = 0; i < count; i++) if (!got.has(`line ${i}`)) throw new Error(`line ${i} is missing`)

  const offsets = await admin.fetchTopicOffsets(topic)
  const total = offsets.reduce((sum, o) => sum + Number(o.offset), 0)
  if (total !== count) throw new Error(`the log ends add up to ${total}`)
  await admin.deleteTopics({ topics: [topic] })
  await admin.disconnect()
  console.log(`kafkajs is content: ${count} records`)
}

main().catch((error) => { console.error(error); process.exit(1) })
