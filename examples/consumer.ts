// Keeps the member list of each group in a SQLite file, from the group events of zim2kafka.
//
//   npm ci
//   node consumer.ts localhost:9092 zim.group members.db
//   sqlite3 members.db "SELECT user_id FROM members WHERE group_id = 'grp-7f3a' AND is_member"
//
// README.md beside this file has the rules that all consumers of this folder follow.

import {
  Consumer, FetchIsolationLevels, type Message, stringDeserializer
} from '@platformatic/kafka'
import { readFileSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout } from 'node:timers/promises'

// At most this many records are in one transaction.
const BATCH = 500

// The types that this program reads, with the field of their users. A breaking change of an event
// gets a new type, which is skipped and counted until this program is changed.
const USERS = new Map([
  ['com.zegocloud.zim.group.created.v1', 'user_ids'],
  ['com.zegocloud.zim.group.joined.v1', 'new_user_ids'],
  ['com.zegocloud.zim.group.left.v1', 'exit_user_ids'],
  ['com.zegocloud.zim.group.destroyed.v1', 'user_ids']
])

type KafkaRecord = Message<Buffer, Buffer, string, string>

const isText = (value: unknown): value is string =>
  // Lone surrogates are no text for SQLite.
  typeof value === 'string' && value !== '' && value.isWellFormed()

const isTime = (value: unknown): value is number =>
  typeof value === 'number' && Number.isInteger(value) && 0 <= value && value < 1e13

// Returns the columns of the view `events`, or the reason for which the record is skipped.
function read({ headers, value }: KafkaRecord) {
  if (value === undefined) return 'no value'
  const type = headers.get('ce_type') ?? ''
  const usersField = USERS.get(type)
  if (usersField === undefined) return 'unknown type'
  let event
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(value)
    event = JSON.parse(text, onlyIntegers)
  } catch {
    return 'not JSON'
  }
  if (typeof event !== 'object' || event === null || Array.isArray(event)) return 'not an object'

  const { event_id, appid, group_id, timestamp, received_at, [usersField]: users = null } = event
  const mayBeUnknown = usersField === 'user_ids'
  const isList = Array.isArray(users) && users.every(isText)
  if (!isList && !(users === null && mayBeUnknown)) return 'invalid field'
  if (![event_id, appid, group_id].every(isText)) return 'invalid field'
  if (![timestamp, received_at].every(isTime)) return 'invalid field'
  return [type, event_id, appid, group_id, users && JSON.stringify(users), timestamp, received_at]
}

// JavaScript has one type for 1, 1.0 and 1e0.
function onlyIntegers(_: string, value: unknown, context?: { source?: string }) {
  return typeof value === 'number' && !/^\d+$/.test(context?.source ?? '') ? NaN : value
}

const [
  brokers = 'localhost:9092', topic = 'zim.group', path = 'members.db', group = 'members-typescript'
] = process.argv.slice(2)
const store = new DatabaseSync(path)
store.exec(readFileSync(new URL('members.sql', import.meta.url), 'utf8'))
type Instance = { id: string; runs: number }
const { id, runs } = store.prepare('SELECT id, runs FROM instance').get() as Instance
const insert = store.prepare('INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)')
const skip = store.prepare('INSERT INTO skipped VALUES (?, ?, ?)')

// A second process with the same store ends the first.
function endIfReplaced() {
  if (store.prepare('SELECT runs FROM instance').get()!.runs !== runs) {
    console.error('another process uses this store')
    process.exit(1)
  }
}

// Lists, ids, counts and offsets change together or, after a crash, not at all.
function apply(records: KafkaRecord[]) {
  store.exec('BEGIN IMMEDIATE')
  endIfReplaced()
  for (const record of records) {
    const partition = `${topic}/${record.partition}`
    const event = read(record)
    if (typeof event === 'string') {
      console.error(`${partition}@${record.offset} skipped: ${event}`)
      skip.run(partition, record.offset, event)
    } else {
      insert.run(partition, record.offset, ...event)
    }
  }
  const changed = store.prepare('SELECT line FROM report').all()
  store.exec('DELETE FROM changed; COMMIT')
  for (const { line } of changed) console.log(line)
}

const consumer = new Consumer({
  clientId: 'members',
  bootstrapBrokers: brokers.split(','),
  // With this client, all members of a group must read the same topic.
  groupId: group,
  // The store's own name: after a restart, this instance gets its partitions back at once.
  groupInstanceId: id,
  sessionTimeout: 45_000,
  // Records that are published again later (header `redriven: true`) are published in transactions.
  isolationLevel: FetchIsolationLevels.READ_COMMITTED,
  autocommit: false,
  deserializers: { headerKey: stringDeserializer, headerValue: stringDeserializer }
})
consumer.on('consumer:group:join', ({ assignments = [] }) => {
  endIfReplaced()
  const partitions = assignments.flatMap(({ partitions }) => partitions)
  console.error(`reads ${partitions.length} partitions of ${topic}`)
})

while (true) {
  try {
    // Only the store's offsets belong to the store's lists. Those of the consumer group are for
    // tools that show the lag. A partition that is assigned again later continues where it was.
    const offsets = store.prepare('SELECT name, next_offset FROM partitions').all().map(row => ({
      topic,
      partition: Number(String(row.name).slice(topic.length + 1)),
      offset: BigInt(Number(row.next_offset))
    }))
    const from = { mode: 'manual', fallbackMode: 'earliest', offsets } as const
    const stream = await consumer.consume({ topics: [topic], ...from })
    let records: KafkaRecord[] = []
    for await (const record of stream) {
      records.push(record)
      if (records.length < BATCH && stream.readableLength > 0) continue
      apply(records)
      const ends = new Map(records.map(record => [record.partition, record]))
      records = []
      if (!consumer.isActive()) continue
      await consumer.commit({
        offsets: [...ends.values()].map(({ partition, offset, leaderEpoch }) =>
          ({ topic, partition, offset: offset + 1n, leaderEpoch }))
      })
    }
  } catch (error) {
    if (store.isTransaction) throw error
    console.error(`kafka: ${error}`)
    await setTimeout(1_000)
  }
}
