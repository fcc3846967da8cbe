package definition

// RuleID names a rule that definitions keep.
type RuleID string

// Rule is one check.
type Rule struct {
	ID RuleID
	// Message and Fix are formats, of what is wrong and of what to do.
	Message, Fix string
	// Warning: a definition that breaks the rule can be applied all the same.
	Warning bool
}

// The numbers are in documents and in what users search for: one is never used for another rule.
const (
	// D101.. are about the text of files.
	fileTooLarge  RuleID = "D101"
	notUTF8       RuleID = "D102"
	notYAML       RuleID = "D103"
	nestedTooDeep RuleID = "D104"
	aliasUsed     RuleID = "D105"
	tagUsed       RuleID = "D106"
	keyNotText    RuleID = "D107"
	keyTwice      RuleID = "D108"
	switchWord    RuleID = "D109"
	capitalWord   RuleID = "D110"
	oddBreak      RuleID = "D111"

	// D201.. are about keys and values.
	wrongShape         RuleID = "D201"
	unknownKey         RuleID = "D202"
	keyMissing         RuleID = "D203"
	notAName           RuleID = "D204"
	outOfRange         RuleID = "D205"
	notOneOf           RuleID = "D206"
	tooMany            RuleID = "D207"
	wrongAPIVersion    RuleID = "D208"
	unknownKind        RuleID = "D209"
	definedTwice       RuleID = "D210"
	tooManyDefinitions RuleID = "D211"
	notYet             RuleID = "D212"

	// D301.. are about expressions and values.
	emptyExpression   RuleID = "D301"
	expressionTooLong RuleID = "D302"
	expressionRefused RuleID = "D303"
	tooExpensive      RuleID = "D304"
	mapOrder          RuleID = "D305"
	zoneRules         RuleID = "D306"
	notACondition     RuleID = "D307"
	bracesNotNeeded   RuleID = "D308"
	notClosed         RuleID = "D309"
	textAround        RuleID = "D310"
	notJoinable       RuleID = "D311"
	wrongType         RuleID = "D312"
	wrongLiteral      RuleID = "D313"
	literalOfMessage  RuleID = "D314"
	notOneExpression  RuleID = "D315"

	// P101.. are about row and key.
	joinRefused     RuleID = "P101"
	notAServiceName RuleID = "P102"
	serviceTaken    RuleID = "P103"
	unknownMessage  RuleID = "P104"
	unknownField    RuleID = "P105"
	notAList        RuleID = "P106"
	rowNotProto3    RuleID = "P107"
	rowNotPossible  RuleID = "P108"
	keyEmpty        RuleID = "P109"
	keyNotString    RuleID = "P110"
	keyNotSortable  RuleID = "P111"
	keyTaken        RuleID = "P112"
	keyOptional     RuleID = "P113"
	namedTwice      RuleID = "P114"
	levelNotAllowed RuleID = "P115"
	notAFieldName   RuleID = "P116"
	numberTwice     RuleID = "P117"
	numberReserved  RuleID = "P118"
	noFields        RuleID = "P119"
	unknownType     RuleID = "P120"

	// P201.. are about sources.
	noSources         RuleID = "P201"
	reservedEntity    RuleID = "P202"
	unknownEntity     RuleID = "P203"
	sourceTwice       RuleID = "P204"
	clauseOfOtherKind RuleID = "P205"
	handlerAndClauses RuleID = "P206"
	unknownService    RuleID = "P207"
	unknownMethod     RuleID = "P208"
	wrongHandler      RuleID = "P209"
	unknownEvent      RuleID = "P210"
	eventTwice        RuleID = "P211"
	stateAmbiguous    RuleID = "P212"
	stateUnknown      RuleID = "P213"
	goneOfValue       RuleID = "P214"
	noAction          RuleID = "P215"
	severalActions    RuleID = "P216"
	forEachWithoutKey RuleID = "P217"
	variableTaken     RuleID = "P218"
	notIterable       RuleID = "P219"
	deleteFalse       RuleID = "P220"
	rowNotNamed       RuleID = "P221"
	deleteSets        RuleID = "P222"
	keyNotEntityID    RuleID = "P223"
	keyChanged        RuleID = "P224"
	keyCleared        RuleID = "P225"
	imageNeedsClause  RuleID = "P226"
	imageNeedsDeleted RuleID = "P227"
	imageUpdate       RuleID = "P228"
	imageShared       RuleID = "P229"
	imageLacks        RuleID = "P230"

	// P301.. are about lookups, indexes and aggregates.
	lookedUpField     RuleID = "P301"
	unknownProjection RuleID = "P302"
	lookupNotString   RuleID = "P303"
	lookupManyRows    RuleID = "P304"
	lookupOfLookup    RuleID = "P305"
	lookupType        RuleID = "P306"
	indexNamedKey     RuleID = "P307"
	wrongDirection    RuleID = "P308"
	notSortable       RuleID = "P309"
	groupDirection    RuleID = "P310"
	aggregateEmpty    RuleID = "P311"
	sumNotInteger     RuleID = "P312"
	lookupLost        RuleID = "P313"

	// P401.. are about queries.
	notAQueryName     RuleID = "P401"
	listName          RuleID = "P402"
	notOfAggregate    RuleID = "P403"
	unknownAggregate  RuleID = "P404"
	notFilterable     RuleID = "P405"
	unknownIndex      RuleID = "P406"
	indexDoesNotServe RuleID = "P407"
	orderNotServed    RuleID = "P408"
	needsScan         RuleID = "P409"
	wrongPath         RuleID = "P410"
	unknownParam      RuleID = "P411"
	paramTaken        RuleID = "P412"
	routeTaken        RuleID = "P413"
	methodTwice       RuleID = "P414"
	pathTwice         RuleID = "P415"

	// P501.. are about the generated API.
	apiBroken RuleID = "P501"
)

// Rules lists all rules.
func Rules() []Rule {
	return []Rule{
		{ID: fileTooLarge, Message: "the file has %d bytes, and the limit is %d", Fix: "split it: a directory may have many files"},
		{ID: notUTF8, Message: "the file is not UTF-8", Fix: "save it as UTF-8"},
		{ID: notYAML, Message: "this is not YAML (%s)", Fix: "look at the indentation, at brackets and at quotes"},
		{ID: nestedTooDeep, Message: "this is nested more than %d deep", Fix: "write it flatter"},
		{ID: aliasUsed, Message: "%s: anchors and aliases are not read", Fix: "write the value out"},
		{ID: tagUsed, Message: "%s: tags are not read", Fix: "take it out; a text in quotes is a text"},
		{ID: keyNotText, Message: "the key is %s", Fix: "a key is a word"},
		{ID: keyTwice, Message: "the key %s is there before, in line %d", Fix: "keep one"},
		{ID: switchWord, Message: "%s is read as true or false by some YAML libraries", Fix: "write true or false, or '%s' in quotes"},
		{ID: capitalWord, Message: "%s is read in different ways by YAML libraries", Fix: "write %s, or '%s' in quotes"},
		{ID: oddBreak, Message: "the line ends with %U", Fix: "end lines with LF or CR LF"},

		{ID: wrongShape, Message: "%s, and here is %s"},
		{ID: unknownKey, Message: "unknown key %s", Fix: "%s"},
		{ID: keyMissing, Message: "%s is missing in %s", Fix: "it is %s"},
		{ID: notAName, Message: "%s is not a name", Fix: "small letters, digits and _, beginning with a letter, at most 40"},
		{ID: outOfRange, Message: "%s is out of range", Fix: "%s to %s"},
		{ID: notOneOf, Message: "%s is not possible", Fix: "%s"},
		{ID: tooMany, Message: "%d %s, and the limit is %d", Fix: "take some out"},
		{ID: wrongAPIVersion, Message: "apiVersion %s is not known", Fix: "this version of millrace reads %s"},
		{ID: unknownKind, Message: "kind %s is not known", Fix: "%s"},
		{ID: definedTwice, Message: "%s %s is defined before, in %s from line %d", Fix: "keep one, or rename one"},
		{ID: tooManyDefinitions, Message: "there are more than %d definitions of kind %s", Fix: "drop some first"},
		{ID: notYet, Message: "this version does not %s", Fix: "%s", Warning: true},

		{ID: emptyExpression, Message: "the expression is empty", Fix: "write it, or take the key out"},
		{ID: expressionTooLong, Message: "the expression has %d bytes, and the limit is %d", Fix: "put the value into the event"},
		{ID: expressionRefused, Message: "%s", Fix: "%s"},
		{ID: tooExpensive, Message: "the expression may cost %s units, and the limit is %d", Fix: "make it simpler, put the value into the event, or set maxItems for short lists"},
		{ID: mapOrder, Message: "a map has no order of its own, so the result could differ from replica to replica", Fix: "go through sortedKeys(map)"},
		{ID: zoneRules, Message: "%s takes a zone of time whose rules can differ from machine to machine", Fix: "use 'UTC' or an offset such as '+02:00'"},
		{ID: notACondition, Message: "the expression is %s, and true or false is needed", Fix: "compare it with something"},
		{ID: bracesNotNeeded, Message: "${ } is not needed here: this is always an expression", Fix: "write what is in the braces"},
		{ID: notClosed, Message: "${ has no end", Fix: "add }, or write $${ for the text itself"},
		{ID: textAround, Message: "there is text around ${ }, which makes a text, and %s is %s", Fix: "take the text away"},
		{ID: notJoinable, Message: "a value of type %s cannot be joined to a text", Fix: "convert it with string()"},
		{ID: wrongType, Message: "%s is %s, and the expression is %s", Fix: "%s"},
		{ID: wrongLiteral, Message: "%s does not fit %s, which is %s", Fix: "%s"},
		{ID: literalOfMessage, Message: "a value of type %s cannot be written as %s", Fix: "use ${ } with an expression of that type"},
		{ID: notOneExpression, Message: "this is one expression in ${ }", Fix: "write in: '${event.lines}'"},

		{ID: joinRefused, Message: "join is not supported", Fix: "use lookup (read time), or put the value into the event"},
		{ID: notAServiceName, Message: "%s is not a name of a service", Fix: "letters and digits, beginning with a capital"},
		{ID: serviceTaken, Message: "the functions have a service %s", Fix: "name another one with `service`"},
		{ID: unknownMessage, Message: "there is no message %s", Fix: "%s"},
		{ID: unknownField, Message: "%s has no field %s", Fix: "%s"},
		{ID: notAList, Message: "%s is %s, and no list", Fix: "take it out of maxItems"},
		{ID: rowNotProto3, Message: "%s is not as in proto3: %s", Fix: "declare it in a file with syntax = \"proto3\""},
		{ID: rowNotPossible, Message: "the fields make no message (%s)", Fix: "see the rules of proto3"},
		{ID: keyEmpty, Message: "the key has no fields", Fix: "name the field of the entity id"},
		{ID: keyNotString, Message: "the first field of the key is the entity id, and %s is %s", Fix: "name a string field; to find rows by another value add an index"},
		{ID: keyNotSortable, Message: "%s is %s, which cannot be in a key", Fix: "use a string, an integer, a bool, an enum, bytes or a time"},
		{ID: keyTaken, Message: "%s is a field of every request to Get", Fix: "take another name for this field of the key"},
		{ID: keyOptional, Message: "%s is optional, and a key always has a value", Fix: "take `optional` away"},
		{ID: namedTwice, Message: "%s is there before", Fix: "keep one"},
		{ID: levelNotAllowed, Message: "the default %s is not in allow", Fix: "add it there, or name another default"},
		{ID: notAFieldName, Message: "%s is not a name of a field", Fix: "small letters, digits and _, beginning with a letter"},
		{ID: numberTwice, Message: "the number %d is that of %s", Fix: "give each field its own"},
		{ID: numberReserved, Message: "the number %d belongs to protobuf", Fix: "take one outside of 19000 to 19999"},
		{ID: noFields, Message: "there are no fields", Fix: "name at least one"},
		{ID: unknownType, Message: "there is no type %s", Fix: "%s"},

		{ID: noSources, Message: "there are no sources", Fix: "name an entity type"},
		{ID: reservedEntity, Message: "%s begins with an underscore: such types are the runtime's", Fix: "name a type of your own"},
		{ID: unknownEntity, Message: "there is no entity type %s", Fix: "%s"},
		{ID: sourceTwice, Message: "%s is a source before", Fix: "put both into one"},
		{ID: clauseOfOtherKind, Message: "%s is not for %s", Fix: "it has %s"},
		{ID: handlerAndClauses, Message: "%s beside apply: the handler folds all records", Fix: "keep one of them"},
		{ID: unknownService, Message: "there is no service %s", Fix: "%s"},
		{ID: unknownMethod, Message: "%s has no method %s", Fix: "%s"},
		{ID: wrongHandler, Message: "%s cannot fold", Fix: "it has to be unary, with %s in and %s out"},
		{ID: unknownEvent, Message: "there is no event %s in %s", Fix: "%s"},
		{ID: eventTwice, Message: "%s is there before", Fix: "an event has one clause, or is ignored"},
		{ID: stateAmbiguous, Message: "the state of %s may be %s or %s", Fix: "name it with `type`"},
		{ID: stateUnknown, Message: "the message of the state of %s is not known", Fix: "add `type`; there is neither %s nor %s in %s"},
		{ID: goneOfValue, Message: "a value entity has no use for this", Fix: "write `deleted` beside `state`"},
		{ID: noAction, Message: "the clause does nothing", Fix: "add set, update or delete; ignore is for events that do nothing"},
		{ID: severalActions, Message: "%s and %s are in one clause", Fix: "keep one"},
		{ID: forEachWithoutKey, Message: "forEach makes several rows, and the key has the entity id only", Fix: "add a field to the key, such as line_no"},
		{ID: variableTaken, Message: "%s has a meaning here", Fix: "take another name"},
		{ID: notIterable, Message: "forEach goes through a list or a map, and the expression is %s", Fix: "name a repeated field"},
		{ID: deleteFalse, Message: "delete: false does nothing", Fix: "take the clause out, and put the event into ignore"},
		{ID: rowNotNamed, Message: "%s does not say which row: %s is missing", Fix: "set it, or write all"},
		{ID: deleteSets, Message: "delete takes fields of the key only, and %s is none", Fix: "take it out"},
		{ID: keyNotEntityID, Message: "%s is the entity id, which the runtime sets", Fix: "take it out; to find rows by another value add an index"},
		{ID: keyChanged, Message: "%s belongs to the key, and all changes every row", Fix: "take it out"},
		{ID: keyCleared, Message: "%s belongs to the key and cannot be null", Fix: "give it a value"},
		{ID: imageNeedsClause, Message: "build: image needs a snapshot or state clause for %s", Fix: "add it, or use build: log"},
		{ID: imageNeedsDeleted, Message: "events delete rows of %s, and its snapshots do not say so", Fix: "add `deleted` to the snapshot clause, or use build: log"},
		{ID: imageUpdate, Message: "build: image has no order between sources, so %s cannot use update", Fix: "use set, or build: log"},
		{ID: imageShared, Message: "with build: image sources set different fields, and %s is set by %s and %s", Fix: "use two fields, or build: log"},
		{ID: imageLacks, Message: "%s is not set by the snapshot or state clause: rows built from the image lack it", Fix: "set it there, or use build: log", Warning: true},

		{ID: lookedUpField, Message: "%s is looked up when a row is read, so it cannot be used %s", Fix: "%s"},
		{ID: unknownProjection, Message: "there is no projection %s", Fix: "%s"},
		{ID: lookupNotString, Message: "a lookup goes by a text, and %s is %s", Fix: "keep the id of the other entity in a string field"},
		{ID: lookupManyRows, Message: "%s has several rows for each entity", Fix: "look up in a projection with one"},
		{ID: lookupOfLookup, Message: "%s of %s is looked up itself", Fix: "look it up where it is"},
		{ID: lookupType, Message: "%s is %s, and %s of %s is %s", Fix: "use fields of one type"},
		{ID: indexNamedKey, Message: "key is the order of the rows themselves", Fix: "take another name"},
		{ID: wrongDirection, Message: "%s is not a direction", Fix: "write desc, or nothing"},
		{ID: notSortable, Message: "%s is %s, which has no order", Fix: "use a string, a number, a bool, an enum, bytes or a time"},
		{ID: groupDirection, Message: "a group has no direction, and %s has one", Fix: "take it away"},
		{ID: aggregateEmpty, Message: "the aggregate has neither count nor sum", Fix: "add one"},
		{ID: sumNotInteger, Message: "%s is %s: sums are of integers, so that they do not depend on the order", Fix: "keep a whole number, such as cents"},
		{ID: lookupLost, Message: "%s looks up %s here, as %s", Fix: "keep the field, or apply a version of %s without it in the same directory"},

		{ID: notAQueryName, Message: "%s is not a name of a query", Fix: "letters and digits, beginning with a capital"},
		{ID: listName, Message: "%s returns rows, and its name does not begin with List", Fix: "call it %s"},
		{ID: notOfAggregate, Message: "%s is not for a query of an aggregate", Fix: "take it out"},
		{ID: unknownAggregate, Message: "there is no aggregate %s", Fix: "%s"},
		{ID: notFilterable, Message: "%s is %s, which a filter cannot compare", Fix: "name a field of it in the row"},
		{ID: unknownIndex, Message: "there is no index %s", Fix: "%s"},
		{ID: indexDoesNotServe, Message: "the index %s is ordered by %s, which does not serve this", Fix: "%s"},
		{ID: orderNotServed, Message: "no index has the order %s, nor its reverse, and nothing is sorted in memory", Fix: "add the index %s"},
		{ID: needsScan, Message: "no index serves this, so every row would be examined for %s", Fix: "%s"},
		{ID: wrongPath, Message: "%s is not a path", Fix: "write one such as /v1/customers/{customer_id}/orders"},
		{ID: unknownParam, Message: "{%s} is not a parameter with a single value", Fix: "%s"},
		{ID: paramTaken, Message: "%s is a field of every request", Fix: "take another name"},
		{ID: routeTaken, Message: "the path %s is that of %s", Fix: "take another one with `http`, or rename the query"},
		{ID: methodTwice, Message: "the method %s is there before, as %s", Fix: "rename one"},
		{ID: pathTwice, Message: "the path %s is that of %s", Fix: "take another one"},

		{ID: apiBroken, Message: "callers of version %d could not go on: %s", Fix: "keep it, or apply with --break-api"},
	}
}

// ruleOf returns a rule of the table.
func ruleOf(id RuleID) Rule {
	for _, r := range Rules() {
		if r.ID == id {
			return r
		}
	}
	return Rule{ID: id}
}
