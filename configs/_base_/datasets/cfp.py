# A test in TinyFace's layout without people to train on: CFP's faces, frontal ones as gallery,
# frontal and profile ones as probes, degraded. For `mmvlr reproduce --also-test cfp`.
_base_ = './faces.py'

cfp_root = __import__('os').environ.get('CFP_ROOT') or 'data/cfp'

test_dataloader = dict(dataset=dict(type='TinyFace', data_root=cfp_root, split='test'))
test_evaluator = dict(type='TinyFaceMetric', prefix='cfp')
