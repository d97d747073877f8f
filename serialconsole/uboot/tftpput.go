package uboot

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/boardspec/boardspec/serialconsole"
)

// TFTPPut has U-Boot upload size bytes of memory from addr on, and returns what
// tftpput printed. A transfer that fails yields a *TransferError, a U-Boot
// without the command an error that wraps ErrNoCommand. Of the options it takes
// BlockSize and Progress; U-Boot writes without windows.
func (s *Shell) TFTPPut(ctx context.Context, file string, addr uint64, size int64, options TFTPOptions) (string, error) {
	if err := checkFileName("tftpput", file); err != nil {
		return "", err
	}
	if err := s.need(ctx, "tftpput", "CONFIG_CMD_TFTPPUT"); err != nil {
		return "", err
	}
	options.WindowSize = 1
	if err := s.setTransfer(ctx, &options); err != nil {
		return "", err
	}
	defer s.watchProgress(options)()
	s.putLast = true
	output, err := s.run(ctx, fmt.Sprintf("tftpput %x %x %s", addr, size, Quote(file)))
	var exit *ExitError
	if errors.As(err, &exit) {
		return output, newTransferError("tftpput", file, output)
	}
	return output, err
}

// TFTPSrv has U-Boot be the TFTP server for one file, which a client puts to its
// address: it returns the load when the client is done. listening is called once
// U-Boot listens, from the console's goroutine; it must not block. U-Boot gives up
// after about 50 seconds without a client, which is a *TransferError.
func (s *Shell) TFTPSrv(ctx context.Context, addr uint64, listening func()) (Load, error) {
	if err := s.need(ctx, "tftpsrv", "CONFIG_CMD_TFTPSRV"); err != nil {
		return Load{}, err
	}
	options := TFTPOptions{Addr: addr, WindowSize: 1}
	if err := s.setTransfer(ctx, &options); err != nil {
		return Load{}, err
	}
	if err := s.forgetPut(ctx, options.Addr); err != nil {
		return Load{}, err
	}
	// "Listening" comes before the socket is open; the load address after.
	defer s.console.Watch(func(serialconsole.Match) { listening() }, serialconsole.Line(srvReady))()
	output, err := s.run(ctx, fmt.Sprintf("tftpsrv %x", options.Addr))
	var exit *ExitError
	if errors.As(err, &exit) {
		return Load{}, newTransferError("tftpsrv", "", output)
	}
	if err != nil {
		return Load{}, err
	}
	load := Load{Addr: options.Addr, Output: output}
	load.Size, err = s.fileSize(ctx)
	return load, err
}

// forgetPut has U-Boot begin a read and stops it at once: after a tftpput, its
// tftpsrv answers a client with blocks of memory in place of ACKs until then
// (tftp_put_active in net/tftp.c).
func (s *Shell) forgetPut(ctx context.Context, addr uint64) error {
	if !s.putLast {
		return nil
	}
	defer s.console.Watch(func(serialconsole.Match) {
		go func() {
			_ = s.console.Send(ctx, controlC) // its error shows in what is waited for
		}()
	}, serialconsole.Literal("Loading: "))()
	// An address that no one has, so that no server sees it.
	_, err := s.run(ctx, fmt.Sprintf("tftpboot %x 127.0.0.1:x", addr))
	var exit *ExitError
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	s.putLast = false
	return nil
}

var srvReady = regexp.MustCompile(`^Load address: `)

func checkFileName(command, file string) error {
	if file == "" || len(file) > maxFileName || strings.ContainsAny(file, "\r\n") {
		return fmt.Errorf("uboot: %s %.40q: a file's name has 1 to %d characters, this one %d", command, file, maxFileName, len(file))
	}
	return nil
}
