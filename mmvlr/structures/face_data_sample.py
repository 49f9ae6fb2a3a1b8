"""The record of one face."""

from mmengine.structures import BaseDataElement


class FaceDataSample(BaseDataElement):
    """One face: its origin, its identity, and the predictions of a model.

    Meta information, set by the data set (all optional but ``sample_idx``):

    - ``sample_idx`` (int): index in its data set; results of several ranks are merged by it.
    - ``img_path`` (str): file, or a name such as ``synthetic:12/3`` where there is none.
    - ``role`` (str): ``train``, ``gallery``, ``probe``, ``distractor``, ``unmated``,
      ``pair`` or ``ui``.
    - ``identity`` (int): the data set's own number of the person; -100 for distractors and UI.
    - ``ori_shape`` ((int, int)): native height and width in pixels, before any resizing.
    - ``template``, ``camera``, ``distance``: for data sets that have them.

    Data, as tensors:

    - ``gt_label`` (int64, ()): class index in [0, num_classes), training only.
    - ``embedding`` (float32, (D,)): raw embedding, not normalized unless the model says so.
    - ``recognizability`` (float32, ()): predicted recognizability index, on the
      scale of xi; higher is better.
    - ``ers`` (float32, ()): embedding recognizability score, min(1 - cos(v, u), 1).
    - ``embedding_norm`` (float32, ()): length of the backbone's embedding.
    - ``crfiqa`` (float32, ()): quality predicted by CR-FIQA.

    Example:
        >>> import torch
        >>> sample = FaceDataSample(metainfo=dict(sample_idx=0, identity=7, role='probe'))
        >>> sample.embedding = torch.zeros(4)
        >>> sample.identity, tuple(sample.embedding.shape)
        (7, (4,))
    """
