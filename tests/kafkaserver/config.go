package kafkaserver

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// logging makes a broker log one line at its start, and then only warnings.
const logging = `rootLogger.level=warn
rootLogger.appenderRef.c.ref=C
appender.c.type=Console
appender.c.name=C
appender.c.layout.type=PatternLayout
appender.c.layout.pattern=%d{HH:mm:ss.SSS} %p %c{1} %m%n
`

// clusterID is the same for all brokers of a cluster, as formatting requires.
const clusterID = "millraceTestKafka00001"

// settings are those of one broker of several.
func (s *Server) settings(all []*Server) map[string]string {
	var voters []string
	for _, o := range all {
		voters = append(voters, fmt.Sprintf("%d@127.0.0.1:%d", o.node, o.controllerPort))
	}
	replicas := strconv.Itoa(min(3, len(all)))
	insync := strconv.Itoa(min(2, len(all)))
	listeners := []string{
		fmt.Sprintf("PLAINTEXT://127.0.0.1:%d", s.port), fmt.Sprintf("CONTROLLER://127.0.0.1:%d", s.controllerPort),
	}
	advertised := []string{listeners[0]}
	protocols := []string{"PLAINTEXT:PLAINTEXT", "CONTROLLER:PLAINTEXT"}
	for _, l := range s.listeners {
		listeners = append(listeners, l.Name+"://"+l.Address)
		advertised = append(advertised, l.Name+"://"+l.Advertised)
		protocols = append(protocols, l.Name+":PLAINTEXT")
	}
	return map[string]string{
		"process.roles":             "broker,controller",
		"node.id":                   strconv.Itoa(s.node),
		"log.dirs":                  filepath.Join(s.dir, "log"),
		"controller.listener.names": "CONTROLLER",
		"listeners":                 strings.Join(listeners, ","),
		"advertised.listeners":      strings.Join(advertised, ","),
		"controller.quorum.voters":  strings.Join(voters, ","),
		"auto.create.topics.enable": "false",
		"min.insync.replicas":       insync,

		"listener.security.protocol.map": strings.Join(protocols, ","),

		"offsets.topic.replication.factor":                 replicas,
		"transaction.state.log.replication.factor":         replicas,
		"transaction.state.log.min.isr":                    insync,
		"share.coordinator.state.topic.replication.factor": replicas,
		"share.coordinator.state.topic.min.isr":            insync,

		// The rest makes tests fast.
		"offsets.topic.num.partitions":         "3",
		"transaction.state.log.num.partitions": "3",
		"group.initial.rebalance.delay.ms":     "0",
		"group.min.session.timeout.ms":         "500",
		"broker.session.timeout.ms":            "1000",
		"broker.heartbeat.interval.ms":         "200",
		"log.cleaner.backoff.ms":               "200",
		"log.initial.task.delay.ms":            "200",
	}
}

// configure writes the files of one broker.
func (s *Server) configure(all []*Server, extra map[string]string) error {
	settings := s.settings(all)
	maps.Copy(settings, extra)
	var text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&text, "%s=%s\n", key, settings[key])
	}
	if err := os.MkdirAll(filepath.Join(s.dir, "tmp"), 0o750); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.dir, "log4j2.properties"), []byte(logging), 0o600); err != nil {
		return err
	}
	return os.WriteFile(s.propertiesFile(), []byte(text.String()), 0o600)
}

func (s *Server) propertiesFile() string { return filepath.Join(s.dir, "server.properties") }
