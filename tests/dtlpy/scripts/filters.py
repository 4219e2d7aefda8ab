"""The query language, sorting and paging."""

import io

from _sdk import dl, done, names, project

data = project().datasets.create("filters")
for number in range(25):
    body = io.BytesIO(b"x" * number)
    body.name = f"{number:02}.{'jpg' if number % 2 else 'txt'}"
    folder = ("/one", "/one/two", "/one/two/three", "/onetwo")[number % 4]
    data.items.upload(
        local_path=body,
        remote_path=folder,
        item_metadata={"user": {"n": number, "tags": ["a", str(number % 3)]}},
    )


def count(*conditions, **options) -> int:
    filters = dl.Filters(**options)
    for condition in conditions:
        filters.add(**condition)
    return data.items.list(filters=filters).items_count


assert count() == 25
assert count({"field": "filename", "values": "/one/**"}) == 19
assert count({"field": "filename", "values": "/one"}) == 19, "the client adds /**"
assert count({"field": "filename", "values": "/one/*"}) == 7
assert count({"field": "dir", "values": "/one"}) == 7
assert count({"field": "dir", "values": "/one/*"}) == 12
assert count({"field": "filename", "values": "*two*"}) == 18
assert count({"field": "name", "values": "0*"}) == 10
assert count({"field": "name", "values": "07.jpg"}) == 1
assert count({"field": "metadata.system.mimetype", "values": "image*"}) == 12
assert count({"field": "metadata.system.size", "values": "20", "operator": "gt"}) == 4, (
    "a number told as text"
)
assert (
    count({"field": "metadata.system.size", "values": 5, "operator": dl.FiltersOperations.LESS_THAN_OR_EQUAL})
    == 6
)
assert count({"field": "metadata.user.n", "values": [1, 2, 99], "operator": "in"}) == 2
assert count({"field": "metadata.user.n", "values": [1, 2], "operator": "nin"}) == 23
assert count({"field": "metadata.user.n", "values": 3, "operator": "ne"}) == 24
assert count({"field": "metadata.user.tags", "values": "1"}) == 8
assert count({"field": "metadata.user.tags", "values": ["a", "1"]}) == 8
assert count({"field": "metadata.user.tags", "values": ["1", "a"]}) == 0
assert count({"field": "metadata.user.none", "values": False, "operator": "exists"}) == 25
assert count({"field": "metadata.user.n", "values": True, "operator": "exists"}) == 25
assert count({"field": "createdAt", "values": "2020-01-01T00:00:00.000Z", "operator": "gt"}) == 25
assert count({"field": "createdAt", "values": "2020-01-01T00:00:00.000Z", "operator": "lt"}) == 0
assert count({"field": "annotated", "values": False}) == 25
either = dl.FiltersMethod.OR
assert count(
    {"field": "dir", "values": "/one", "method": either}, {"field": "dir", "values": "/onetwo", "method": either}
) == 13  # fmt: skip
assert (
    count(
        custom_filter={
            "$or": [{"name": "00.txt"}, {"$and": [{"dir": "/onetwo"}, {"metadata.user.n": {"$gte": 19}}]}]
        }
    )
    == 3
)

data.items.update(filters=dl.Filters(field="dir", values="/onetwo"), update_values={"moved": True})
assert count({"field": "metadata.user.moved", "values": True}) == 6

everything = names(data.items.list())
assert sorted(item.filename for page in data.items.list(page_size=7) for item in page) == everything, (
    "by keyset"
)
ordered = dl.Filters()
ordered.sort_by(field="filename", value=dl.FiltersOrderByDirection.DESCENDING)
pages = data.items.list(filters=ordered, page_size=7)
assert [item.filename for page in pages for item in page] == everything[::-1], "by offset"
sized = dl.Filters()
sized.sort_by(field="metadata.user.n", value=dl.FiltersOrderByDirection.DESCENDING)
assert [item.metadata["user"]["n"] for item in data.items.list(filters=sized, page_size=5).items] == [
    24,
    23,
    22,
    21,
    20,
]
second = data.items.list(page_offset=1, page_size=10)
assert (len(second.items), second.items_count) == (10, 25)
assert dl.items.get(item_id=second.items[0].id).id == second.items[0].id
# A wrong filter is told as 400, which the client swallows: it must be empty, not everything.
assert count({"field": "no.such.field", "values": 1}) == 0
done()
