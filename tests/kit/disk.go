package kit

import (
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
)

// FillDisk writes a file until its disk has no room left.
func FillDisk(t testing.TB, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for size := 1 << 20; size >= 1; {
		_, err := f.Write(make([]byte, size))
		switch {
		case errors.Is(err, syscall.ENOSPC):
			size /= 2 // up to the last byte
		case err != nil && !errors.Is(err, io.ErrShortWrite):
			t.Fatalf("fill the disk: %v", err)
		}
	}
}
