// Package kafkaserver runs a real Apache Kafka from its published Java archives, without
// containers, for tests and for `make kafka` and `make kafka-cluster`. It needs a Java runtime (17
// or newer) and, the first time on a machine, Maven to fetch the archives.
//
// The archives are listed with their sha256 in kafka-jars.txt. They are fetched once from the
// repository that Maven is configured for, checked, and kept below the user's cache directory,
// never in the project. A class data archive of the Java runtime is made there too: it brings a
// start from 4 s down to 2 s.
//
// Tests call Require (skip, or fail where CI=true) and then Start or StartCluster; programs call
// Launch. A broker started by a test ends with the test's process. Each Server owns one goroutine
// that waits for its process; Stop and Kill end the process and wait for both. Methods of one
// Server must not overlap.
//
// ErrUnavailable means that this machine cannot run Kafka, and is wrapped with the reason; other
// errors are about a broker that did not start or stop, with the end of its log.
package kafkaserver
