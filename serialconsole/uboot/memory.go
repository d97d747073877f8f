package uboot

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"regexp"
	"strconv"
	"strings"
)

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

// Hash returns the digest of size bytes of memory from addr on, as U-Boot
// computes it: algorithm is crc32, md5, sha1, sha256 or another that its hash
// command has (CONFIG_CMD_HASH).
func (s *Shell) Hash(ctx context.Context, algorithm string, addr uint64, size int64) ([]byte, error) {
	if algorithm == "crc32" {
		crc, err := s.CRC32(ctx, addr, size)
		return []byte{byte(crc >> 24), byte(crc >> 16), byte(crc >> 8), byte(crc)}, err
	}
	output, err := s.Run(ctx, fmt.Sprintf("hash %s %x %x", Quote(algorithm), addr, size))
	if err != nil {
		return nil, err
	}
	found := hashLine.FindStringSubmatch(output)
	if found == nil {
		return nil, fmt.Errorf("uboot: hash %s printed %q", algorithm, output)
	}
	return hex.DecodeString(found[1])
}

var hashLine = regexp.MustCompile(`(?m) ==> ([0-9a-f]+)$`)

// readStep is how much of memory is shown by one command, in bytes: about 17
// KiB of console.
const readStep = 4 << 10

// ReadMemory returns size bytes of memory from addr on. They are read over the
// console, in hexadecimal and with some four characters each: at 115200 baud
// about 2.5 KiB a second. What was read is proved by U-Boot's CRC-32.
func (s *Shell) ReadMemory(ctx context.Context, addr uint64, size int64) ([]byte, error) {
	memory := make([]byte, 0, size)
	for int64(len(memory)) < size {
		step := min(readStep, size-int64(len(memory)))
		piece, err := s.readPiece(ctx, addr+uint64(len(memory)), step)
		if err != nil {
			return nil, err
		}
		memory = append(memory, piece...)
	}
	return memory, nil
}

func (s *Shell) readPiece(ctx context.Context, addr uint64, size int64) ([]byte, error) {
	command := fmt.Sprintf("md.b %x %x", addr, size)
	for range typeAttempts {
		output, err := s.run(ctx, command)
		if err != nil {
			return nil, err
		}
		crc, err := s.CRC32(ctx, addr, size)
		if err != nil {
			return nil, err
		}
		piece, err := parseDump(output)
		if err == nil && int64(len(piece)) == size && crc32.ChecksumIEEE(piece) == crc {
			return piece, nil
		}
	}
	return nil, &NoiseError{Command: command, Reason: "what it printed does not have the memory's CRC-32"}
}

// dumpLine is a line of md.b: the address, up to 16 bytes, and their text.
var dumpLine = regexp.MustCompile(`^[0-9a-f]{8,16}:((?: [0-9a-f]{2}){1,16})`)

func parseDump(output string) ([]byte, error) {
	var memory []byte
	for line := range strings.SplitSeq(output, "\n") {
		found := dumpLine.FindStringSubmatch(line)
		if found == nil {
			return nil, fmt.Errorf("uboot: md.b printed %q", line)
		}
		bytes, err := hex.DecodeString(strings.ReplaceAll(found[1], " ", ""))
		if err != nil {
			return nil, err
		}
		memory = append(memory, bytes...)
	}
	return memory, nil
}

// WriteMemory writes data to memory from addr on, byte by byte over the
// console: some 18 characters each, which is for patches, not for images. What
// was written is proved by U-Boot's CRC-32.
func (s *Shell) WriteMemory(ctx context.Context, addr uint64, data []byte) error {
	var line strings.Builder
	flush := func() error {
		if line.Len() == 0 {
			return nil
		}
		_, err := s.Run(ctx, line.String())
		line.Reset()
		return err
	}
	for i := 0; i < len(data); {
		run := 1 // of equal bytes
		for i+run < len(data) && data[i+run] == data[i] {
			run++
		}
		write := fmt.Sprintf("mw.b %x %x %x", addr+uint64(i), data[i], run)
		if line.Len()+len(write)+40 > s.config.MaxLine {
			if err := flush(); err != nil {
				return err
			}
		}
		if line.Len() > 0 {
			line.WriteString("; ")
		}
		line.WriteString(write)
		i += run
	}
	if err := flush(); err != nil {
		return err
	}
	crc, err := s.CRC32(ctx, addr, int64(len(data)))
	if err == nil && crc != crc32.ChecksumIEEE(data) {
		err = fmt.Errorf("uboot: %d bytes written to %#x read back as others: crc32 %08x, want %08x: is there memory?", len(data), addr, crc, crc32.ChecksumIEEE(data))
	}
	return err
}

// Compare compares size bytes of memory at a with those at b. It returns the
// offset of the first byte that differs, -1 if none does.
func (s *Shell) Compare(ctx context.Context, a, b uint64, size int64) (int64, error) {
	if size == 0 {
		return -1, nil
	}
	output, err := s.Run(ctx, fmt.Sprintf("cmp.b %x %x %x", a, b, size))
	var exit *ExitError
	if err == nil {
		return -1, nil
	}
	found := compareLine.FindStringSubmatch(output)
	if !errors.As(err, &exit) || found == nil {
		return 0, err
	}
	at, err := strconv.ParseUint(found[1], 16, 64)
	if err != nil {
		return 0, fmt.Errorf("uboot: cmp.b printed %q: %w", output, err)
	}
	return int64(at - a), nil
}

var compareLine = regexp.MustCompile(`(?m)^byte at 0x([0-9a-f]+) \(`)
