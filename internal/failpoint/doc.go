// Package failpoint names the moments at which a crash is most interesting, so that tests can have one there. In a normal
// build Hit does nothing and costs nothing. In a build with tag failpoints the process kills itself, as kill -9 would, when
// the point that the environment variable MILLRACE_FAILPOINT names is hit for the nth time: "after-send:17", and each SIGUSR1 sets
// the wall clock of the process on by Step, each SIGUSR2 back. It starts no goroutine.
package failpoint

import "time"

// Variable is the environment variable that arms one point, as name:n with n from 1.
const Variable = "MILLRACE_FAILPOINT"

// Step is by how much a signal sets the wall clock.
const Step = 10 * time.Second

// The points, in the order in which a command meets them.
const (
	// BeforeSend: a batch is decided and not given to the log.
	BeforeSend = "before-send"
	// AfterSend: a batch was given to the log, which has not answered.
	AfterSend = "after-send"
	// AfterAck: the log has acknowledged a batch, the store does not have it.
	AfterAck = "after-ack"
	// AfterApply: the store has a batch, nobody is answered.
	AfterApply = "after-apply"
	// BeforeEffect: an entry of the outbox is about to be sent.
	BeforeEffect = "before-effect"
	// AfterEffect: the target has answered an entry of the outbox, which is not settled.
	AfterEffect = "after-effect"
	// BeforeTimer: a timer is due, its command is not decided.
	BeforeTimer = "before-timer"
)

// Points are all of them.
func Points() []string {
	return []string{BeforeSend, AfterSend, AfterAck, AfterApply, BeforeEffect, AfterEffect, BeforeTimer}
}
