package uboot

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/boardspec/boardspec/serialconsole"
)

// ErrNotSet is the error of an environment variable that is not set.
var ErrNotSet = errors.New("not set")

// Getenv returns the value of an environment variable. One that is not set
// yields an error that wraps ErrNotSet.
func (s *Shell) Getenv(ctx context.Context, name string) (string, error) {
	// printenv shows the value as it is; echo would expand it.
	output, err := s.Run(ctx, "printenv "+Quote(name))
	var exit *ExitError
	if errors.As(err, &exit) && strings.Contains(output, "not defined") {
		return "", fmt.Errorf("uboot: variable %s: %w", name, ErrNotSet)
	}
	if err != nil {
		return "", err
	}
	value, ok := strings.CutPrefix(output, name+"=")
	if !ok {
		return "", fmt.Errorf("uboot: printenv %s printed %q", name, output)
	}
	return value, nil
}

// Setenv sets an environment variable; an empty value deletes it. The value may
// hold any printable character.
func (s *Shell) Setenv(ctx context.Context, name, value string) error {
	command := "setenv " + Quote(name)
	if value != "" {
		command += " " + Quote(value)
	}
	_, err := s.Run(ctx, command)
	return err
}

// Quote quotes a word for U-Boot's hush parser (common/cli_hush.c): between
// single quotes all is literal but the backslash, which has to be doubled.
func Quote(word string) string {
	if plainWord.MatchString(word) {
		return word
	}
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `'\''`).Replace(word) + "'"
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:+-]+$`)

// Version returns U-Boot's version line, as in "U-Boot 2025.01-3 (Jan 01 2025 -
// 00:00:00 +0000)".
func (s *Shell) Version(ctx context.Context) (string, error) {
	output, err := s.Run(ctx, "version")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(output) {
		if strings.HasPrefix(line, "U-Boot") {
			return strings.TrimSpace(line), nil
		}
	}
	return "", fmt.Errorf("uboot: version printed %q", output)
}

// Reset runs U-Boot's reset command, waits until the board starts anew, and
// brings it to the prompt again.
func (s *Shell) Reset(ctx context.Context) error {
	if s.lost {
		if err := s.Interrupt(ctx); err != nil {
			return err
		}
	}
	s.lost = true
	from, err := s.typeLine(ctx, "reset")
	if err != nil {
		return fmt.Errorf("uboot: reset: %w", err)
	}
	if _, err := s.console.Expect(ctx, from, serialconsole.Line(banner)); err != nil {
		return fmt.Errorf("uboot: reset: %w", err)
	}
	return s.Interrupt(ctx)
}

var banner = regexp.MustCompile(`^(U-Boot (SPL )?[0-9]|DRAM: )`)

// LoadAddr returns where U-Boot loads files to unless told otherwise: $loadaddr,
// else $kernel_addr_r.
func (s *Shell) LoadAddr(ctx context.Context) (uint64, error) {
	for _, name := range []string{"loadaddr", "kernel_addr_r"} {
		value, err := s.Getenv(ctx, name)
		if errors.Is(err, ErrNotSet) {
			continue
		}
		if err != nil {
			return 0, err
		}
		addr, err := strconv.ParseUint(strings.TrimPrefix(value, "0x"), 16, 64)
		if err != nil {
			return 0, fmt.Errorf("uboot: variable %s is no address: %q", name, value)
		}
		return addr, nil
	}
	return 0, errors.New("uboot: neither loadaddr nor kernel_addr_r is set: give the address to load to")
}

// Fill sets size bytes of memory from addr on to value.
func (s *Shell) Fill(ctx context.Context, addr uint64, size int64, value byte) error {
	long := size / 4
	if addr%4 != 0 {
		long = 0
	}
	if long > 0 {
		if _, err := s.Run(ctx, fmt.Sprintf("mw.l %x %02[2]x%02[2]x%02[2]x%02[2]x %x", addr, value, long)); err != nil {
			return err
		}
	}
	if rest := size - 4*long; rest > 0 {
		if _, err := s.Run(ctx, fmt.Sprintf("mw.b %x %02x %x", addr+uint64(4*long), value, rest)); err != nil {
			return err
		}
	}
	return nil
}

// CRC32 returns the CRC-32 (IEEE) of size bytes of memory from addr on, as
// U-Boot computes it. Of no bytes it is 0, and U-Boot is not asked.
func (s *Shell) CRC32(ctx context.Context, addr uint64, size int64) (uint32, error) {
	if size == 0 {
		return 0, nil
	}
	output, err := s.Run(ctx, fmt.Sprintf("crc32 %x %x", addr, size))
	if err != nil {
		return 0, err
	}
	found := crcLine.FindStringSubmatch(output)
	if found == nil {
		return 0, fmt.Errorf("uboot: crc32 printed %q", output)
	}
	crc, err := strconv.ParseUint(found[1], 16, 32)
	return uint32(crc), err
}

var crcLine = regexp.MustCompile(`(?m)==> ([0-9a-f]{8})$`)
