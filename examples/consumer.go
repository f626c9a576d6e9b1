// Keeps the member list of each group in a SQLite file, from the group events of zim2kafka.
//
//	go run . localhost:9092 zim.group members.db
//	sqlite3 members.db "SELECT user_id FROM members WHERE group_id = 'grp-7f3a' AND is_member"
//
// README.md beside this file has the rules that all consumers of this folder follow.
package main

import (
	"context"
	"database/sql"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	_ "modernc.org/sqlite"
)

// At most this many records are in one transaction.
const batch = 500

// The types that this program reads, with the field of their users. A breaking change of an event
// gets a new type, which is skipped and counted until this program is changed.
var users = map[string]string{
	"com.zegocloud.zim.group.created.v1":   "user_ids",
	"com.zegocloud.zim.group.joined.v1":    "new_user_ids",
	"com.zegocloud.zim.group.left.v1":      "exit_user_ids",
	"com.zegocloud.zim.group.destroyed.v1": "user_ids",
}

//go:embed members.sql
var rules string

type event struct {
	Type, ID, App, Group  string
	Users                 any // a JSON list, or nil if they are unknown
	Timestamp, ReceivedAt int64
}

// read fails with the reason for which the record is skipped.
func read(record *kgo.Record) (*event, error) {
	if record.Value == nil {
		return nil, errors.New("no value")
	}
	var e event
	for _, header := range record.Headers {
		if header.Key == "ce_type" {
			e.Type = string(header.Value)
		}
	}
	usersField, known := users[e.Type]
	if !known {
		return nil, errors.New("unknown type")
	}
	// Not into a struct, because that ignores the case of names.
	var fields map[string]json.RawMessage
	err := json.Unmarshal(record.Value, &fields)
	var isOther *json.UnmarshalTypeError
	switch {
	case errors.As(err, &isOther) || err == nil && fields == nil:
		return nil, errors.New("not an object")
	case err != nil || !utf8.Valid(record.Value):
		return nil, errors.New("not JSON")
	}

	texts := []*string{
		field[string](fields, "event_id"),
		field[string](fields, "appid"),
		field[string](fields, "group_id"),
	}
	times := []*int64{field[int64](fields, "timestamp"), field[int64](fields, "received_at")}
	list := field[[]*string](fields, usersField)
	isUnknown := fields[usersField] == nil || string(fields[usersField]) == "null"
	mayBeUnknown := usersField == "user_ids"
	isValid := list != nil || isUnknown && mayBeUnknown
	if list != nil {
		e.Users = string(fields[usersField])
		texts = append(texts, *list...)
	}
	for _, text := range texts {
		isValid = isValid && text != nil && *text != ""
	}
	for _, time := range times {
		isValid = isValid && time != nil && *time >= 0 && *time < 1e13
	}
	if !isValid {
		return nil, errors.New("invalid field")
	}
	e.ID, e.App, e.Group = *texts[0], *texts[1], *texts[2]
	e.Timestamp, e.ReceivedAt = *times[0], *times[1]
	return &e, nil
}

// field returns nil if the field is missing, null, or of another type.
func field[T any](fields map[string]json.RawMessage, name string) *T {
	var value *T
	if json.Unmarshal(fields[name], &value) != nil {
		return nil
	}
	return value
}

// Lists, ids, counts and offsets change together or, after a crash, not at all.
func apply(store *sql.DB, records []*kgo.Record) error {
	tx, err := store.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback() // nothing, once it is committed
	insert, err := tx.Prepare("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")
	if err != nil {
		return err
	}
	defer insert.Close()
	for _, record := range records {
		partition := name(record.Topic, record.Partition)
		if e, reason := read(record); reason != nil {
			log.Printf("%s@%d skipped: %v", partition, record.Offset, reason)
			_, err = tx.Exec(
				"INSERT INTO skipped VALUES (?, ?, ?)", partition, record.Offset, reason.Error())
		} else {
			_, err = insert.Exec(
				partition, record.Offset, e.Type, e.ID, e.App, e.Group, e.Users, e.Timestamp, e.ReceivedAt)
		}
		if err != nil {
			return err
		}
	}
	var report string
	lines := tx.QueryRow("SELECT coalesce(group_concat(line, char(10)) || char(10), '') FROM report")
	if err := lines.Scan(&report); err != nil {
		return err
	}
	if _, err := tx.Exec("DELETE FROM changed"); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	fmt.Print(report)
	return nil
}

func name(topic string, partition int32) string {
	return fmt.Sprintf("%s/%d", topic, partition)
}

type offsets = map[string]map[int32]kgo.Offset

// Only the store's offsets belong to the store's lists. Those of the consumer group are for tools
// that show the lag.
func continueAt(store *sql.DB, assigned offsets) error {
	for topic, partitions := range assigned {
		for partition := range partitions {
			var next int64
			row := store.QueryRow(
				"SELECT next_offset FROM partitions WHERE name = ?", name(topic, partition))
			switch err := row.Scan(&next); {
			case err == nil:
				partitions[partition] = kgo.NewOffset().At(next)
			case errors.Is(err, sql.ErrNoRows):
				partitions[partition] = kgo.NewOffset().AtStart()
			default:
				return err
			}
		}
		log.Printf("reads %d partitions of %s", len(partitions), topic)
	}
	return nil
}

func run(brokers, topic, path, group string) error {
	store, err := sql.Open("sqlite", path)
	if err != nil {
		return err
	}
	store.SetMaxOpenConns(1) // the pragmas of members.sql are those of a connection
	if _, err := store.Exec(rules); err != nil {
		return err
	}
	var instance string
	if err := store.QueryRow("SELECT id FROM instance").Scan(&instance); err != nil {
		return err
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(brokers, ",")...),
		kgo.ConsumeTopics(topic),
		kgo.ConsumerGroup(group),
		// The store's own name: after a restart, this instance gets its partitions back at once,
		// and a second process with the same store ends the first.
		kgo.InstanceID(instance),
		// Records that are published again later (header `redriven: true`) are published in
		// transactions.
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// A partition is not given away between a poll and the commit of its records.
		kgo.BlockRebalanceOnPoll(),
		kgo.AdjustFetchOffsetsFn(func(_ context.Context, assigned offsets) (offsets, error) {
			return assigned, continueAt(store, assigned)
		}),
	)
	if err != nil {
		return err
	}
	defer client.CloseAllowingRebalance()
	for {
		fetches := client.PollRecords(context.Background(), batch)
		for _, failed := range fetches.Errors() {
			if errors.Is(failed.Err, kerr.FencedInstanceID) {
				return failed.Err
			}
			log.Printf("kafka: %v", failed.Err)
		}
		if err := apply(store, fetches.Records()); err != nil {
			return err
		}
		client.AllowRebalance()
	}
}

func main() {
	log.SetFlags(0)
	arguments := []string{"localhost:9092", "zim.group", "members.db", "members-go"}
	copy(arguments, os.Args[1:])
	log.Fatal(run(arguments[0], arguments[1], arguments[2], arguments[3]))
}
