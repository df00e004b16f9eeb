package store

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// Link is a place in the chain of the audit log: the number of an event and
// the hash that covers it and everything before it.
type Link struct {
	Seq  int64
	Hash Digest
}

// String is SEQ:HASH, the form in which operators keep a head.
func (l Link) String() string { return fmt.Sprintf("%d:%s", l.Seq, hex.EncodeToString(l.Hash[:])) }

// ParseLink reads what String writes.
func ParseLink(s string) (Link, error) {
	var l Link
	number, hash, _ := strings.Cut(s, ":")
	seq, err := strconv.ParseInt(number, 10, 64)
	raw, bad := hex.DecodeString(hash)
	if err != nil || bad != nil || seq < 0 || len(raw) != len(l.Hash) {
		return l, fmt.Errorf("%q is not SEQ:HASH", s)
	}
	l.Seq = seq
	copy(l.Hash[:], raw)
	return l, nil
}

// chainVersion is the first byte of what is hashed; another layout would have
// another one.
const chainVersion = 1

// Chained returns the hash of an event that follows one with the hash previous:
// SHA-256 over a version, previous, and every field, each with its length, so
// that no two events have the same bytes. Times count in microseconds.
func (e AuditEvent) Chained(previous Digest) Digest {
	b := make([]byte, 0, 256)
	b = append(b, chainVersion)
	b = append(b, previous[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Seq))
	b = binary.BigEndian.AppendUint64(b, uint64(e.Time.UnixMicro()))
	for _, field := range []string{e.Action, e.Outcome, e.Actor, e.Client, e.Subject, e.Grant, e.Session, e.IP, e.Reason} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(field)))
		b = append(b, field...)
	}
	return sha256.Sum256(b)
}
