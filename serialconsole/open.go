package serialconsole

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Open opens the port that address names:
//
//	/dev/ttyUSB0?baud=115200      a serial line; its parameters below
//	usb:?vid=0403&serial=A50285BI the line of a USB adapter: vid and pid in hexadecimal, serial
//	tcp://host:port               a TCP socket that carries the line as it is
//	telnet://host:port?baud=9600  a telnet server, with RFC 2217 where parameters are given
//	unix:///path                  a unix socket that carries the line as it is
//	exec:PROGRAM ARGUMENTS        a program's standard input and output: ssh, conserver's console
//
// Parameters of a serial line are baud (115200 if not given), data (bits: 5 to
// 8; 8), parity (none, odd, even; none) and stop (bits: 1, 2; 1), and reconnect:
// how long a line may be gone and still come back, as in reconnect=30s; not at
// all if not given. A line is locked for as long as it is open, by flock and by
// the UUCP lock file; one that another process has open yields a *BusyError.
// Arguments of a program are separated by spaces; quotes keep them together.
//
// Open blocks until the port is open, and a telnet server has set its line, or
// ctx ends; ctx does not bound the port's life. A Read that waits ends when the
// port is closed, with an error that wraps ErrClosed or net.ErrClosed, and when
// the other end goes: with io.EOF from a socket or a program, with ErrHangup
// from a line. Ports of lines and of telnet servers are a LineControl.
func Open(ctx context.Context, address string) (io.ReadWriteCloser, error) {
	port, err := open(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("serialconsole: open %s: %w", address, err)
	}
	return port, nil
}

func open(ctx context.Context, address string) (io.ReadWriteCloser, error) {
	if line, ok := strings.CutPrefix(address, "exec:"); ok {
		return openProgram(ctx, line)
	}
	place, query, _ := strings.Cut(address, "?")
	// A plus is itself, as in the names of Debian's versions.
	parameters, err := url.ParseQuery(strings.ReplaceAll(query, "+", "%2B"))
	if err != nil {
		return nil, fmt.Errorf("its parameters do not read as name=value&name=value: %w", err)
	}
	scheme, rest, isURL := strings.Cut(place, "://")
	switch {
	case place == "usb:":
		if place, err = findUSB(parameters); err != nil {
			return nil, err
		}
		for _, own := range []string{"vid", "pid", "serial"} {
			parameters.Del(own)
		}
		return openLine(ctx, place, parameters)
	case !isURL && place != "":
		return openLine(ctx, place, parameters)
	case scheme == "tcp", scheme == "unix", scheme == "telnet":
		if scheme != "unix" {
			if _, _, err := net.SplitHostPort(rest); err != nil {
				return nil, fmt.Errorf("%w; it reads %s://host:port", err, scheme)
			}
		}
		if scheme == "telnet" {
			if len(parameters) == 0 {
				return openTelnet(ctx, rest, nil)
			}
			line, err := parseLine(parameters)
			if err != nil {
				return nil, err
			}
			return openTelnet(ctx, rest, &line)
		}
		if err := only(parameters); err != nil {
			return nil, err
		}
		return new(net.Dialer).DialContext(ctx, scheme, rest)
	}
	return nil, errors.New("an address is the path of a serial line, usb:?serial=NUMBER, tcp://host:port, telnet://host:port, unix:///path or exec:PROGRAM ARGUMENTS")
}

func openLine(ctx context.Context, path string, parameters url.Values) (io.ReadWriteCloser, error) {
	reconnect := parameters.Get("reconnect")
	parameters.Del("reconnect")
	l, err := parseLine(parameters)
	if err != nil {
		return nil, err
	}
	if reconnect == "" {
		return openSerial(ctx, path, l)
	}
	limit, err := time.ParseDuration(reconnect)
	if err != nil || limit <= 0 {
		return nil, fmt.Errorf("reconnect=%s is no time, as in reconnect=30s", reconnect)
	}
	return openReconnecting(ctx, path, limit, func(ctx context.Context) (io.ReadWriteCloser, error) {
		return openSerial(ctx, path, l)
	})
}

// line is how bits are sent on a serial line.
type line struct {
	baud   int
	data   int
	parity string
	stop   int
}

func parseLine(parameters url.Values) (line, error) {
	l := line{baud: 115200, data: 8, parity: "none", stop: 1}
	if err := only(parameters, "baud", "data", "parity", "stop"); err != nil {
		return l, err
	}
	number := func(name string, into *int, low, high int) error {
		text := parameters.Get(name)
		if text == "" {
			return nil
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < low || n > high {
			return fmt.Errorf("%s=%s is not a number from %d to %d", name, text, low, high)
		}
		*into = n
		return nil
	}
	if err := number("baud", &l.baud, 50, 4_000_000); err != nil {
		return l, err
	}
	if err := number("data", &l.data, 5, 8); err != nil {
		return l, err
	}
	if err := number("stop", &l.stop, 1, 2); err != nil {
		return l, err
	}
	if parity := parameters.Get("parity"); parity != "" {
		if !slices.Contains([]string{"none", "odd", "even"}, parity) {
			return l, fmt.Errorf("parity=%s is none of none, odd and even", parity)
		}
		l.parity = parity
	}
	return l, nil
}

func only(parameters url.Values, known ...string) error {
	for name := range parameters {
		if !slices.Contains(known, name) {
			if len(known) == 0 {
				return fmt.Errorf("unknown parameter %s; there are none", name)
			}
			return fmt.Errorf("unknown parameter %s; there are %s", name, strings.Join(known, ", "))
		}
	}
	return nil
}
