package tftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Client reads files from TFTP servers and writes files to them: for boards
// that are the server, such as U-Boot's tftpsrv. The zero value is ready. Set
// the fields before use; the methods may be called concurrently.
type Client struct {
	Mode       string            // "octet" or "netascii"; octet if empty
	BlockSize  int               // blksize asked for, in bytes; 1468 if zero, which fits an Ethernet frame
	WindowSize int               // windowsize asked for, in blocks; if zero 16, less where blocks are so large that a socket would not hold them
	Timeout    time.Duration     // wait before a packet is sent again; 1 s if zero. Set to whole seconds it is asked of the server too
	GiveUp     time.Duration     // silence of the server after which a transfer has failed; 30 s if zero
	Dally      time.Duration     // how long Get stays to acknowledge a last block that comes again; not at all if zero
	NoOptions  bool              // ask for no options at all: RFC 1350
	Options    map[string]string // more options to ask for, or other values for those above

	// ListenPacket opens the socket of one transfer; net.ListenPacket if nil.
	ListenPacket func(network, address string) (net.PacketConn, error)

	Faults *Faults        // what shall go wrong; nothing if nil
	Trace  func(Packet)   // is called with every packet; nil for none
	Notify func(Transfer) // is called when the options are agreed and when the transfer has ended; nil for none
	Log    *slog.Logger   // nil discards
}

// Get reads a file from the server at an address (port 69 as a rule) and writes
// it to w. It blocks until the transfer has ended or ctx ends. The record is
// complete in either case; the error is its Err. What w got is the file only if
// the error is nil: a size other than the server said is an error.
func (c *Client) Get(ctx context.Context, server netip.AddrPort, filename string, w io.Writer) (Transfer, error) {
	return c.transfer(ctx, server, OpRead, filename, -1, func(x *exchange) error {
		packet, err := c.ask(x)
		if err != nil {
			return err
		}
		t := target{Writer: w, limit: -1, commit: func() error { return nil }}
		if x.record.Mode == modeNetascii {
			translated := &netasciiWriter{w: w}
			t.Writer, t.commit = translated, translated.flush
		}
		prompt := make([]byte, headerSize)
		putHeader(prompt, OpAck, 0)
		return x.receiveFile(t, prompt, packet)
	})
}

// Put writes what r has to a file on the server at an address (port 69 as a
// rule). It blocks until the server has acknowledged the last block or ctx
// ends. The record is complete in either case; the error is its Err. The size
// is told to the server where r has a method Stat, Len or Size.
func (c *Client) Put(ctx context.Context, server netip.AddrPort, filename string, r io.Reader) (Transfer, error) {
	mode := c.mode()
	file, err := newContent(r, mode)
	if err != nil {
		err = fmt.Errorf("tftp: write %s: %w", filename, err)
		return Transfer{Op: OpWrite, Filename: filename, Mode: mode, Outcome: Failed, Err: err}, err
	}
	return c.transfer(ctx, server, OpWrite, filename, file.size, func(x *exchange) error {
		if _, err := c.ask(x); err != nil {
			return err
		}
		return x.sendFile(file)
	})
}

func (c *Client) mode() string {
	if c.Mode == "" {
		return modeOctet
	}
	return strings.ToLower(c.Mode)
}

// request makes the request of a transfer.
func (c *Client) request(op Op, filename string, size int64) (request, error) {
	r := request{op: op, filename: filename, mode: c.mode()}
	switch {
	case filename == "" || strings.Contains(filename, "\x00"):
		return r, fmt.Errorf("%q is no file name", filename)
	case r.mode != modeOctet && r.mode != modeNetascii:
		return r, fmt.Errorf("mode %q is neither octet nor netascii", c.Mode)
	case c.BlockSize != 0 && (c.BlockSize < minBlockSize || c.BlockSize > maxBlockSize):
		return r, fmt.Errorf("block size %d is not within %d to %d", c.BlockSize, minBlockSize, maxBlockSize)
	case c.WindowSize < 0 || c.WindowSize > maxWindowSize:
		return r, fmt.Errorf("window size %d is not within 1 to %d", c.WindowSize, maxWindowSize)
	}
	if c.NoOptions {
		return r, nil
	}
	more := optionMap(nil)
	for name, value := range c.Options {
		more[strings.ToLower(name)] = value
	}
	add := func(name string, value int64) {
		text := strconv.FormatInt(value, 10)
		if other, ok := more[name]; ok {
			text = other
			delete(more, name)
		}
		r.options = append(r.options, option{name, text})
	}
	if op == OpRead {
		add("tsize", 0)
	} else if size >= 0 {
		add("tsize", size)
	}
	if block := orDefault(c.BlockSize, 1468); block != defaultBlockSize {
		add("blksize", int64(block))
	}
	if window := c.windowSize(); window != 1 {
		add("windowsize", int64(window))
	}
	if seconds := c.Timeout / time.Second; seconds >= 1 && seconds <= maxTimeout && c.Timeout%time.Second == 0 {
		add("timeout", int64(seconds))
	}
	r.options = append(r.options, sortedOptions(more)...)
	return r, nil
}

// windowSize returns the window to ask for.
func (c *Client) windowSize() int {
	return orDefault(c.WindowSize, min(defaultWindowSize, receiveBuffer/(orDefault(c.BlockSize, 1468)+perBlock)))
}

func orDefault[T int | time.Duration](value, otherwise T) T {
	if value == 0 {
		return otherwise
	}
	return value
}

// transfer opens a socket, carries out a transfer, and returns its record.
func (c *Client) transfer(ctx context.Context, server netip.AddrPort, op Op, filename string, size int64, carryOut func(*exchange) error) (Transfer, error) {
	server = unmap(server)
	r, err := c.request(op, filename, size)
	x := newExchange(r, server)
	x.anyPort, x.notify, x.log = true, c.Notify, c.Log
	x.verb = fmt.Sprintf("%v %s: server %v", op, filename, server)
	x.timeout = orDefault(c.Timeout, defaultTimeout)
	x.giveUp = orDefault(c.GiveUp, max(defaultGiveUp, 4*x.timeout))
	x.size = size
	if err == nil && !server.IsValid() {
		err = errors.New("the server has no address")
	}
	var wire socket
	if err == nil {
		wire, err = c.socket(x)
	}
	if err == nil {
		defer wire.Close()
		err = x.use(wire)
	}
	if err == nil {
		x.in = make([]byte, headerSize+max(orDefault(c.BlockSize, 1468), 2048)+1)
		stop := context.AfterFunc(ctx, func() { x.cancel(Canceled, context.Cause(ctx), "Canceled") })
		defer stop()
		err = carryOut(x)
	}
	err = x.conclude(err, wireError)
	if err == nil && op == OpRead && c.Dally > 0 {
		x.stay(c.Dally)
	}
	return x.snapshot(), err
}

// socket opens the socket of one transfer, with its layers.
func (c *Client) socket(x *exchange) (socket, error) {
	listen := c.ListenPacket
	if listen == nil {
		listen = net.ListenPacket
	}
	conn, err := listen("udp", ":0")
	if err != nil {
		return nil, fmt.Errorf("open the transfer's socket: %w", err)
	}
	if b, ok := conn.(interface{ SetReadBuffer(bytes int) error }); ok {
		if window := c.windowSize() * (orDefault(c.BlockSize, 1468) + perBlock); window > receiveBuffer {
			_ = b.SetReadBuffer(window) // as far as the system allows; what does not fit is sent again
		}
	}
	wire := withSegments(newSocket(conn))
	if c.Trace != nil {
		wire = newTraced(wire, c.Trace)
	}
	if c.Faults == nil {
		return wire, nil
	}
	return c.Faults.wrap(wire, listen, nil, x.noteFault), nil
}

// ask sends the request until the server answers, and puts into force what it
// grants. It returns block 1 if that was the answer.
func (c *Client) ask(x *exchange) ([]byte, error) {
	r, err := c.request(x.record.Op, x.record.Filename, x.size)
	if err != nil {
		return nil, err
	}
	plain := agreement{blockSize: defaultBlockSize, windowSize: 1, timeout: x.timeout, size: -1}
	if r.op == OpWrite {
		plain.size = x.size
	}
	packet := appendRequest(nil, r)
	x.quiet = time.Now()
	for {
		if err := x.send(packet); err != nil {
			return nil, err
		}
		sent := time.Now()
		for {
			answer, from, err := x.receive(x.until(sent))
			if err != nil {
				if err := x.resume(err, 1); err != nil {
					return nil, fmt.Errorf("request: %w", err)
				}
				break
			}
			if opcode(answer) == OpOAck {
				x.adopt(from)
				options, ok := parseOptions(answer[2:])
				a, err := accept(r, options, x.timeout)
				if !ok {
					err = errMalformed
				}
				if err != nil {
					return nil, fmt.Errorf("option acknowledgement: %w: %w", err, &Error{CodeOptionNegotiation, "Option negotiation failed"})
				}
				if r.op == OpWrite {
					a.size = x.size
				}
				x.agree(a)
				return nil, nil
			}
			if block, ok := blockNumber(answer, OpData); ok && block == 1 && r.op == OpRead {
				x.adopt(from)
				x.agree(plain)
				return answer, nil
			}
			if block, ok := blockNumber(answer, OpAck); ok && block == 0 && r.op == OpWrite {
				x.adopt(from)
				x.agree(plain)
				return nil, nil
			}
			x.update(func(t *Transfer) { t.Strays++ })
		}
	}
}
