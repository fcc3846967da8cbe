package definitions

// HashOf names content.
var HashOf = hashOf
