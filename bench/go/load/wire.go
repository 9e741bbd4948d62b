package main

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
)

var errWire = errors.New("a message is not valid protobuf")

// walk calls got with every value of a length-delimited field that a path of field numbers
// leads to. It reads nothing else and copies nothing.
func walk(message []byte, path []protowire.Number, got func([]byte)) error {
	for len(message) > 0 {
		number, kind, size := protowire.ConsumeTag(message)
		if size < 0 {
			return errWire
		}
		message = message[size:]
		if number != path[0] || kind != protowire.BytesType {
			size = protowire.ConsumeFieldValue(number, kind, message)
			if size < 0 {
				return errWire
			}
			message = message[size:]
			continue
		}
		value, size := protowire.ConsumeBytes(message)
		if size < 0 {
			return errWire
		}
		message = message[size:]
		if len(path) == 1 {
			got(value)
		} else if err := walk(value, path[1:], got); err != nil {
			return err
		}
	}
	return nil
}

// field returns a length-delimited field of a message.
func field[T string | []byte](number protowire.Number, value T) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), []byte(value))
}
