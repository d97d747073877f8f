package tftp_test

import (
	"bytes"
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/boardspec/boardspec/tftp"
)

// An upload fills a real file system: its client is told by the code that RFC
// 1350 has for that, and nothing of it is left.
func TestUploadToAFullDisk(t *testing.T) {
	asRoot(t)
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	dir, err := tftp.OpenDir(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	server := &tftp.Server{Create: dir.Create}
	addr := serve(t, server)

	_, err = (&tftp.Client{}).Put(t.Context(), addr, "log", bytes.NewReader(content(1<<20)))
	var sent *tftp.PeerError
	if !errors.As(err, &sent) || sent.Sent.Code != tftp.CodeDiskFull {
		t.Errorf("the client's error is %v, want code %v", err, tftp.CodeDiskFull)
	}
	transfer := settled(t, server)
	if transfer.Outcome != tftp.Failed || !errors.Is(transfer.Err, syscall.ENOSPC) {
		t.Errorf("record %v", transfer)
	}
	if left, err := os.ReadDir(disk); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}
