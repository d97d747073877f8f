package uboot

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"regexp"
	"strconv"
	"strings"

	"github.com/boardspec/boardspec/serialconsole"
)

// TFTPOptions says how a file is loaded.
type TFTPOptions struct {
	Addr       uint64 // where to; LoadAddr's if zero
	BlockSize  int    // bytes; 1468 if zero, what one Ethernet frame holds. The lwIP stack asks for that whatever it is told, until 2025.10
	WindowSize int    // blocks; WindowSize's if zero. The lwIP stack knows no windows
	Progress   func() // is called for each # that U-Boot prints, ten blocks, from the console's goroutine: it must not block. Nil for none
}

// Load is a file that U-Boot loaded.
type Load struct {
	Addr   uint64
	Size   int64  // bytes
	Output string // what tftpboot printed
}

// TransferError is a transfer that U-Boot reports as failed.
type TransferError struct {
	Command string // tftpboot, tftpput
	File    string
	Code    int    // of the server's ERROR packet; -1 where it was none
	Reason  string // U-Boot's own words
	Output  string // all that the command printed
}

// Error implements error.
func (e *TransferError) Error() string {
	return fmt.Sprintf("uboot: %s %s: U-Boot says: %s", e.Command, e.File, e.Reason)
}

// WindowSize returns the largest window, in blocks, that the network device in
// use is known to take: 16 on virtio-net, 1 on any other. e1000 stalls at more
// than 1, and most devices have four receive buffers.
func (s *Shell) WindowSize(ctx context.Context) (int, error) {
	device, err := s.networkDevice(ctx)
	if err != nil {
		return 0, err
	}
	if strings.HasPrefix(device, "virtio-net") {
		return 16, nil
	}
	return 1, nil
}

// networkDevice returns the name of the network device in use, empty if U-Boot
// does not tell: "net list" knows it from the start where there is such a
// command, ethact once it was used.
func (s *Shell) networkDevice(ctx context.Context) (string, error) {
	var exit *ExitError
	output, err := s.Run(ctx, "net list")
	if found := activeDevice.FindStringSubmatch(output); err == nil && found != nil {
		return found[1], nil
	}
	if err != nil && !errors.As(err, &exit) {
		return "", err
	}
	device, err := s.Getenv(ctx, "ethact")
	if errors.Is(err, ErrNotSet) {
		return "", nil
	}
	return device, err
}

var activeDevice = regexp.MustCompile(`(?m)^eth[0-9]+ : (\S+) .*\bactive$`)

// maxFileName is where U-Boot cuts a file's name without a word (net/tftp.c).
const maxFileName = 127

// TFTPBoot loads a file with U-Boot's tftpboot. It sets all of U-Boot's tftp
// variables that matter each time, since some U-Boots remember a value after
// its variable was deleted, and clears filesize and fileaddr, which a failed
// transfer would leave as they were. A transfer that fails yields a
// *TransferError at once; U-Boot is kept from trying again by itself.
func (s *Shell) TFTPBoot(ctx context.Context, file string, options TFTPOptions) (Load, error) {
	if err := checkFileName("tftpboot", file); err != nil {
		return Load{}, err
	}
	if err := s.setTransfer(ctx, &options); err != nil {
		return Load{}, err
	}
	defer s.watchProgress(options)()
	s.putLast = false
	// With one argument a name of hexadecimal digits would be an address. What
	// it prints is for people: the size is read from a variable.
	output, err := s.run(ctx, fmt.Sprintf("tftpboot %x %s", options.Addr, Quote(file)))
	var exit *ExitError
	if errors.As(err, &exit) {
		return Load{}, newTransferError("tftpboot", file, output)
	}
	if err != nil {
		return Load{}, err
	}
	load := Load{Addr: options.Addr, Output: output}
	load.Size, err = s.fileSize(ctx)
	return load, err
}

// setTransfer fills in what options leave out and gives U-Boot all variables
// that it goes by in a transfer.
func (s *Shell) setTransfer(ctx context.Context, options *TFTPOptions) (err error) {
	if options.Addr == 0 {
		if options.Addr, err = s.LoadAddr(ctx); err != nil {
			return err
		}
	}
	if options.BlockSize == 0 {
		options.BlockSize = 1468
	}
	if options.WindowSize == 0 {
		if options.WindowSize, err = s.WindowSize(ctx); err != nil {
			return err
		}
	}
	for _, line := range []string{
		"setenv filesize; setenv fileaddr; setenv tftpdstp; setenv tftpsrcp; setenv autostart no; setenv netretry no",
		fmt.Sprintf("setenv tftptimeout 5000; setenv tftptimeoutcountmax 10; setenv tftpblocksize %d; setenv tftpwindowsize %d",
			options.BlockSize, options.WindowSize),
	} {
		if _, err := s.Run(ctx, line); err != nil {
			return err
		}
	}
	return nil
}

// watchProgress calls options.Progress until it is told to stop.
func (s *Shell) watchProgress(options TFTPOptions) (stop func()) {
	if options.Progress == nil {
		return func() {}
	}
	return s.console.Watch(func(serialconsole.Match) { options.Progress() }, serialconsole.Literal("#"))
}

// fileSize returns what the last transfer left in the variable filesize: the
// legacy stack leaves it as it was, which is deleted, for an empty file.
func (s *Shell) fileSize(ctx context.Context) (int64, error) {
	value, err := s.Getenv(ctx, "filesize")
	if errors.Is(err, ErrNotSet) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	size, err := strconv.ParseInt(value, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("uboot: variable filesize is no size: %q", value)
	}
	return size, nil
}

var (
	failure = regexp.MustCompile(`(?m)^\s*(TFTP error: .*|ARP Retry count exceeded.*|Retry count exceeded.*|\*\*\* ERROR: .*|error: .*|No ethernet found.*|Invalid (?:blk size|timeout val|window size).*|Timeout!.*|TFTP server died.*|tftp_get\(\) error.*|Abort)$`)
)

// newTransferError finds U-Boot's words for a failure in what a command printed.
// The legacy stack prints TFTP error: 'File not found' (1), lwIP the code in
// the other byte order: TFTP error: 256 (File not found).
func newTransferError(command, file, output string) *TransferError {
	e := &TransferError{Command: command, File: file, Code: -1, Reason: lastLine(output), Output: output}
	if found := failure.FindStringSubmatch(output); found != nil {
		e.Reason = strings.TrimSpace(found[1])
	}
	if found := legacyError.FindStringSubmatch(e.Reason); found != nil {
		e.Code, _ = strconv.Atoi(found[1]) // digits, and few
	} else if found := lwipError.FindStringSubmatch(e.Reason); found != nil {
		if code, err := strconv.ParseUint(found[1], 10, 16); err == nil {
			e.Code = int(bits.ReverseBytes16(uint16(code)))
		}
	}
	return e
}

var (
	legacyError = regexp.MustCompile(`^TFTP error: '.*' \(([0-9]{1,5})\)$`)
	lwipError   = regexp.MustCompile(`^TFTP error: ([0-9]+) \(.*\)$`)
)
