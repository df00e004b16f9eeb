package forward

import "testing"

// FuzzFramesEndWhereTheyEndHoweverTheyArrive compares a whole read with pieces,
// and puts a close frame of ours where it may stand.
func FuzzFramesEndWhereTheyEndHoweverTheyArrive(f *testing.F) {
	for _, seed := range []string{
		"\x81\x05hello", "\x81\x85\x01\x02\x03\x04hello", "\x82\x7e\x01\x00", "\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00",
		"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff", "\x89\x00\x8a\x00\x88\x02\x03\xe8", "\x01\x01a\x80\x01b",
	} {
		f.Add([]byte(seed), uint8(1))
	}
	f.Fuzz(func(t *testing.T, stream []byte, size uint8) {
		var whole, pieces frames
		whole.pass(stream)
		step := int(size%32) + 1
		for rest := stream; len(rest) > 0; {
			n := min(step, len(rest))
			pieces.pass(rest[:n])
			rest = rest[n:]
		}
		if whole.left != pieces.left || whole.have != pieces.have {
			t.Fatalf("%+v and %+v", whole, pieces)
		}
		if whole.between() {
			if whole.pass(closeFrame(closeGoingAway, true)); !whole.between() {
				t.Fatalf("a close frame does not end: %+v", whole)
			}
		}
	})
}
