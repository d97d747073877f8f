package uboot

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
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

// Env returns all environment variables. Of a value of several lines it returns
// what printenv shows, which is ambiguous where a line reads name=value; Getenv
// is not.
func (s *Shell) Env(ctx context.Context) (map[string]string, error) {
	output, err := s.Run(ctx, "printenv")
	if err != nil {
		return nil, err
	}
	env := make(map[string]string)
	last := ""
	for line := range strings.SplitSeq(output, "\n") {
		if environmentSize.MatchString(line) {
			break
		}
		if name, value, ok := strings.Cut(line, "="); ok && name != "" && !strings.ContainsAny(name, " \t") {
			env[name], last = value, name
		} else if last != "" {
			env[last] += "\n" + line
		}
	}
	for name, value := range env {
		env[name] = strings.TrimSuffix(value, "\n")
	}
	return env, nil
}

var environmentSize = regexp.MustCompile(`^Environment size: \d+/\d+ bytes$`)

// Addr returns the address that an environment variable holds, such as
// kernel_addr_r. One that is not set yields an error that wraps ErrNotSet.
func (s *Shell) Addr(ctx context.Context, name string) (uint64, error) {
	value, err := s.Getenv(ctx, name)
	if err != nil {
		return 0, err
	}
	addr, err := strconv.ParseUint(strings.TrimPrefix(value, "0x"), 16, 64)
	if err != nil {
		return 0, fmt.Errorf("uboot: variable %s is no address: %q", name, value)
	}
	return addr, nil
}

// LoadAddr returns where U-Boot loads files to unless told otherwise: $loadaddr,
// else $kernel_addr_r.
func (s *Shell) LoadAddr(ctx context.Context) (uint64, error) {
	for _, name := range []string{"loadaddr", "kernel_addr_r"} {
		addr, err := s.Addr(ctx, name)
		if !errors.Is(err, ErrNotSet) {
			return addr, err
		}
	}
	return 0, errors.New("uboot: neither loadaddr nor kernel_addr_r is set: give the address to load to")
}
