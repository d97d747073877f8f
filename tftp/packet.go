package tftp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Op is the opcode of a packet (RFC 1350 section 5). A [Transfer] has the
// opcode of its request: OpRead or OpWrite.
type Op uint16

// The opcodes.
const (
	OpRead  Op = 1 // RRQ: the client reads a file from the server
	OpWrite Op = 2 // WRQ: the client writes a file to the server
	OpData  Op = 3 // DATA
	OpAck   Op = 4 // ACK
	OpError Op = 5 // ERROR
	OpOAck  Op = 6 // OACK (RFC 2347)
)

// String returns "read", "write", "DATA", "ACK", "ERROR" or "OACK".
func (o Op) String() string {
	switch o {
	case OpRead:
		return "read"
	case OpWrite:
		return "write"
	case OpData:
		return "DATA"
	case OpAck:
		return "ACK"
	case OpError:
		return "ERROR"
	case OpOAck:
		return "OACK"
	}
	return fmt.Sprintf("Op(%d)", uint16(o))
}

const (
	headerSize     = 4    // of DATA and ACK: opcode and block number, both big-endian
	maxRequestSize = 2048 // bytes; RFC 2347 sets 512, but clients with long names exceed it
)

// option is a name and its value as they stand in a request or an OACK.
type option struct{ name, value string }

// request is a parsed RRQ or WRQ.
type request struct {
	op       Op
	filename string
	mode     string // lower case
	options  []option
}

var errMalformed = errors.New("malformed packet")

// opcode returns a packet's opcode, 0 if it is too short to have one.
func opcode(packet []byte) Op {
	if len(packet) < 2 {
		return 0
	}
	return Op(binary.BigEndian.Uint16(packet))
}

func isRequest(op Op) bool { return op == OpRead || op == OpWrite }

// parseRequest reads an RRQ or WRQ (RFC 1350 figure 5-1, RFC 2347). The mode and
// the names of options come out in lower case.
func parseRequest(packet []byte) (request, error) {
	r := request{op: opcode(packet)}
	if !isRequest(r.op) || len(packet) > maxRequestSize {
		return r, errMalformed
	}
	rest := packet[2:]
	filename, rest, ok := cutString(rest)
	if !ok || filename == "" {
		return r, errMalformed
	}
	r.filename = filename
	mode, rest, ok := cutString(rest)
	if !ok {
		return r, errMalformed
	}
	r.mode = strings.ToLower(mode)
	r.options, ok = parseOptions(rest)
	if !ok {
		return r, errMalformed
	}
	return r, nil
}

// parseOptions reads the options of a request or an OACK (RFC 2347). Their
// names come out in lower case.
func parseOptions(rest []byte) ([]option, bool) {
	var options []option
	for len(rest) > 0 {
		var o option
		var ok bool
		if o.name, rest, ok = cutString(rest); !ok {
			return options, false
		}
		if o.value, rest, ok = cutString(rest); !ok {
			return options, false
		}
		o.name = strings.ToLower(o.name)
		options = append(options, o)
	}
	return options, true
}

// cutString cuts a string that ends in NUL off the front of packet.
func cutString(packet []byte) (text string, rest []byte, ok bool) {
	before, after, ok := bytes.Cut(packet, []byte{0})
	return string(before), after, ok
}

// appendRequest appends an RRQ or WRQ.
func appendRequest(packet []byte, r request) []byte {
	packet = binary.BigEndian.AppendUint16(packet, uint16(r.op))
	packet = append(packet, r.filename...)
	packet = append(packet, 0)
	packet = append(packet, r.mode...)
	packet = append(packet, 0)
	return appendOptions(packet, r.options)
}

// appendOAck appends an OACK (RFC 2347).
func appendOAck(packet []byte, options []option) []byte {
	return appendOptions(binary.BigEndian.AppendUint16(packet, uint16(OpOAck)), options)
}

func appendOptions(packet []byte, options []option) []byte {
	for _, o := range options {
		packet = append(packet, o.name...)
		packet = append(packet, 0)
		packet = append(packet, o.value...)
		packet = append(packet, 0)
	}
	return packet
}

// putHeader writes the header of a DATA or an ACK packet.
func putHeader(packet []byte, op Op, block uint16) {
	binary.BigEndian.PutUint16(packet, uint16(op))
	binary.BigEndian.PutUint16(packet[2:], block)
}

// blockNumber returns the block number of a DATA or an ACK packet, and false
// for any other.
func blockNumber(packet []byte, op Op) (uint16, bool) {
	if len(packet) < headerSize || opcode(packet) != op {
		return 0, false
	}
	return binary.BigEndian.Uint16(packet[2:]), true
}

// appendError appends an ERROR packet (RFC 1350 figure 5-4).
func appendError(packet []byte, e *Error) []byte {
	packet = binary.BigEndian.AppendUint16(packet, uint16(OpError))
	packet = binary.BigEndian.AppendUint16(packet, uint16(e.Code))
	packet = append(packet, strings.ReplaceAll(e.Message, "\x00", "")...)
	return append(packet, 0)
}

// parseError reads an ERROR packet; a message without its NUL is taken whole.
func parseError(packet []byte) (*Error, bool) {
	if len(packet) < headerSize || opcode(packet) != OpError {
		return nil, false
	}
	message, _, _ := bytes.Cut(packet[headerSize:], []byte{0})
	return &Error{
		Code:    ErrorCode(binary.BigEndian.Uint16(packet[2:])),
		Message: strings.ToValidUTF8(string(message), "?"),
	}, true
}

// describe names a packet in a few words, for records and logs.
func describe(packet []byte) string {
	op := opcode(packet)
	switch op {
	case OpRead, OpWrite:
		name := map[Op]string{OpRead: "RRQ", OpWrite: "WRQ"}[op]
		r, err := parseRequest(packet)
		if err != nil {
			return fmt.Sprintf("%s (malformed, %d bytes)", name, len(packet))
		}
		return fmt.Sprintf("%s %q %s%s", name, r.filename, r.mode, optionText(r.options))
	case OpData:
		if block, ok := blockNumber(packet, OpData); ok {
			return fmt.Sprintf("DATA %d (%d bytes)", block, len(packet)-headerSize)
		}
	case OpAck:
		if block, ok := blockNumber(packet, OpAck); ok {
			return fmt.Sprintf("ACK %d", block)
		}
	case OpError:
		if e, ok := parseError(packet); ok {
			return fmt.Sprintf("ERROR %d %q", e.Code, e.Message)
		}
	case OpOAck:
		if options, ok := parseOptions(packet[2:]); ok {
			return "OACK" + optionText(options)
		}
	}
	return fmt.Sprintf("%v (malformed, %d bytes)", op, len(packet))
}

func optionText(options []option) string {
	var text strings.Builder
	for _, o := range options {
		fmt.Fprintf(&text, " %s=%s", o.name, o.value)
	}
	return text.String()
}
