from tamiyo.contracts import AdaptationType
from tamiyo.graph import schema


def test_dimensions_are_those_of_the_design():
    assert (schema.NODE_DIM, schema.EDGE_DIM, len(schema.ACTIONS)) == (16, 8, len(AdaptationType))


def test_names_are_unique():
    for columns in (schema.NODE_COLUMNS, schema.EDGE_COLUMNS, schema.GLOBAL_COLUMNS):
        assert len({column.name for column in columns}) == len(columns)


def test_each_class_has_one_layer_type_and_the_rest_is_other():
    classes = [name for names in schema.LAYER_TYPES.values() for name in names]
    assert len(set(classes)) == len(classes)
    assert schema.layer_type_index("NoSuchLayer") == list(schema.LAYER_TYPES).index("other") == 0
    assert list(schema.LAYER_TYPES)[schema.layer_type_index("Conv2d")] == "conv"


def test_the_rendered_table_shows_every_column():
    text = schema.render_schema()
    columns = schema.NODE_COLUMNS + schema.EDGE_COLUMNS + schema.GLOBAL_COLUMNS
    for column in columns:
        row = next(line for line in text.splitlines() if f"`{column.name}`" in line)
        assert column.unit in row
        assert row.count("|") == 6
