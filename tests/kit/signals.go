package kit

import (
	"os"
	"os/signal"
	"syscall"
)

// HearHangUps lets SIGHUP reach the programs that this one starts. Under nohup, and in some CI
// systems, it is ignored, and so it is in every child; a signal that is caught here is not. Call it
// once, in TestMain.
func HearHangUps() { signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP) }
