package peer_test

func beChild() {}
