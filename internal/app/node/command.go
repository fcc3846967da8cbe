package node

import (
	"os/exec"
	"sync"
)

// command is the supervised function's process, so that it can be ended from outside of its task.
type command struct {
	mu      sync.Mutex
	running *exec.Cmd
	// release ends the guard of the running process's group.
	release func()
	// abandoned: no other one is started.
	abandoned bool
}

// start starts a process, unless it was abandoned.
func (c *command) start(cmd *exec.Cmd) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.abandoned {
		return errStopping
	}
	release := ownGroup(cmd)
	if err := cmd.Start(); err != nil {
		release()
		return err
	}
	c.running, c.release = cmd, release
	return nil
}

// ended forgets the process, and kills its children.
func (c *command) ended(cmd *exec.Cmd) {
	c.mu.Lock()
	defer c.mu.Unlock()
	killGroup(cmd)
	c.release()
	c.running = nil
}

// kill ends the process at once, and prevents a new one.
func (c *command) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.abandoned = true
	if c.running != nil {
		killGroup(c.running)
	}
}
