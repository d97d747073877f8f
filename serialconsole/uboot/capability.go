package uboot

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

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

// Has reports whether U-Boot has a command. It asks once, by its help command;
// where there is none, or it does not list commands, it tries "help NAME".
func (s *Shell) Has(ctx context.Context, command string) (bool, error) {
	if s.commands == nil {
		output, err := s.Run(ctx, "help")
		var exit *ExitError
		if err != nil && !errors.As(err, &exit) {
			return false, err
		}
		s.commands = parseHelp(output)
	}
	return s.commands[command], nil
}

// parseHelp reads the list that help prints: a line for each command, its name
// before a dash.
func parseHelp(output string) map[string]bool {
	commands := make(map[string]bool)
	for line := range strings.SplitSeq(output, "\n") {
		if name, _, ok := strings.Cut(line, "- "); ok && name != "" {
			if name = strings.TrimSpace(name); !strings.ContainsAny(name, " \t") {
				commands[name] = true
			}
		}
	}
	return commands
}

// ErrNoCommand is the error of a command that this U-Boot was built without.
var ErrNoCommand = errors.New("this U-Boot was built without the command")

// need returns an error that wraps ErrNoCommand where U-Boot lacks a command.
func (s *Shell) need(ctx context.Context, command, option string) error {
	has, err := s.Has(ctx, command)
	if err == nil && !has {
		err = fmt.Errorf("uboot: %s: %w (%s)", command, ErrNoCommand, option)
	}
	return err
}
