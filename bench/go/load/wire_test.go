package main

import (
	"reflect"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

func texts(t *testing.T, message []byte, path ...protowire.Number) []string {
	t.Helper()
	var found []string
	if err := walk(message, path, func(value []byte) { found = append(found, string(value)) }); err != nil {
		t.Fatal(err)
	}
	return found
}

func TestWalkFindsRepeatedFieldsInOrderAndPassesOthers(t *testing.T) {
	event := func(text string) []byte {
		inner := append(field(2, "llm:1"), field(1, text)...)
		sequence := protowire.AppendVarint(protowire.AppendTag(nil, 2, protowire.VarintType), 7)
		return field(1, append(append(field(1, "id"), sequence...), field(7, inner)...))
	}
	message := append(event("one "), event("two ")...)
	if found := texts(t, message, 1, 7, 1); !reflect.DeepEqual(found, []string{"one ", "two "}) {
		t.Fatal(found)
	}
}

func TestWalkFindsNothingInAHeartbeat(t *testing.T) {
	if found := texts(t, nil, 1, 7, 1); found != nil {
		t.Fatal(found)
	}
}

func TestWalkRefusesWhatIsCutOff(t *testing.T) {
	message := field(1, field(7, field(1, "text")))
	for end := 1; end < len(message); end++ {
		if walk(message[:end], []protowire.Number{1, 7, 1}, func([]byte) {}) == nil {
			t.Fatalf("%d of %d bytes pass", end, len(message))
		}
	}
}
